"""The written table of what operations do to axes: which are tied, split, cut or pinned.

Names are those of the tensor library's own operations, to which layers and functions come down.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from pluria.align import layers, shapes
from pluria.align.shapes import Rule

READING = {"mm": (0, 1), "addmm": (1, 2), "bmm": (0, 1), "baddbmm": (1, 2), "convolution": (0,), "mv": (0, 1)}
"""Operations that sum over an axis of what they read, and where those stand among their arguments."""


def name_of(operation: Any) -> str:
    """The name of an operation without its overload."""
    return str(operation._overloadpacket.__name__)


def contractions(name: str, args: tuple[Any, ...]) -> Iterator[Tensor]:
    """What an operation that sums over an axis reads."""
    yield from (args[place] for place in READING.get(name, ()))


def rule_of(operation: Any) -> Rule:
    """The rule of an operation; what acts place by place needs none of its own, all else unknown is pinned."""
    name = name_of(operation)
    plain = shapes.pointwise if torch.Tag.pointwise in operation.tags else shapes.unknown
    return RULES.get(name) or RULES.get(name.removesuffix("_")) or plain


def _table(rules: dict[str, Rule]) -> dict[str, Rule]:
    return {name: rule for names, rule in rules.items() for name in names.split()}


RULES: dict[str, Rule] = _table(
    {
        "view _unsafe_view reshape _reshape_alias": shapes.view,
        "clone detach alias contiguous _to_copy lift_fresh lift_fresh_copy": shapes.same,
        "_softmax _safe_softmax _log_softmax": shapes.same,
        "permute": shapes.permute,
        "t transpose": shapes.transpose,
        "unsqueeze": shapes.unsqueeze,
        "squeeze": shapes.squeeze,
        "expand": shapes.expand,
        "sum mean amax amin var std var_mean prod logsumexp all any": shapes.reduce,
        "mm addmm bmm baddbmm mv": layers.product,
        "convolution": layers.convolution,
        "native_layer_norm _fused_rms_norm": layers.norm(2),
        "native_batch_norm _native_batch_norm_legit_no_training cudnn_batch_norm": layers.norm(1),
        "native_group_norm": layers.group_norm,
        "max_pool2d_with_indices avg_pool2d _adaptive_avg_pool2d": layers.spatial,
        "upsample_nearest2d upsample_bilinear2d": layers.spatial,
        "embedding": layers.embedding,
        "select unbind": shapes.select,
        "index": shapes.indexed,
        "slice": shapes.take,
        "split split_with_sizes": shapes.parts,
        "cat": shapes.concatenate,
        "stack": shapes.stack,
        "constant_pad_nd": shapes.padded,
        "copy_": shapes.copied,
        "zeros ones full empty zeros_like ones_like full_like empty_like": shapes.filled,
        "new_zeros new_ones new_full new_empty fill_ zero_": shapes.filled,
    }
)
"""Every operation with a rule, by name; in-place forms (`relu_`) have that of the plain one."""
