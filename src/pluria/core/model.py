"""What each tensor of a model is for: its role, its output axis, and which names are tied.

    linear     Linear, Bilinear, attention projections (packed or not), recurrent cells     output axis 0
    conv       convolutions (axis 0), transposed ones (axis 1, with the groups as blocks)
    embedding  one row for each word, axis 0
    head       a language model's output layer that is not tied to the embedding
    norm, other   everything else; never rounded unless asked for

A Hugging Face Conv1D keeps its inputs first: output axis 1.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Hashable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from pluria.core.params import Params, memory
from pluria.numbers.grid import Layout, layout

Kind = Literal["linear", "conv", "embedding", "head", "norm", "other"]
ROUNDED: frozenset[Kind] = frozenset({"linear", "conv", "embedding"})
"""Kinds that low precision rounds by default, where the tensor has two or more axes."""


@dataclass(frozen=True)
class Role:
    """Kind of a tensor, the axis of its output channels, and the blocks of a grouped transposed convolution."""

    kind: Kind
    axis: int = 0
    blocks: int = 1

    def layout(self, shape: torch.Size) -> Layout:
        """How the elements of a tensor of this role map to output channels and inputs."""
        return layout(shape, axis=self.axis, blocks=self.blocks)


OTHER = Role("other")
NORM_WORDS = frozenset({"ln", "bn"})
"""Whole words of a name that speak of a norm: `bn1`, `ln_f`, but not `subnet`."""


def roles(model: nn.Module) -> dict[str, Role]:
    """The role of every name in the model's state dict."""
    heads = _untied_head(model)
    found = {name: OTHER for name in model.state_dict(keep_vars=True)}
    for prefix, module in model.named_modules(remove_duplicate=False):
        for name, role in _own_roles(module):
            full = f"{prefix}.{name}" if prefix else name
            if full in found:
                found[full] = Role("head") if id(getattr(module, name)) in heads else role
    return found


def guess_roles(params: Params) -> dict[str, Role]:
    """Roles from names and shapes alone, for a checkpoint without its model: output axis 0 everywhere.

    Matrices whose name speaks of an embedding are embeddings; `lm_head` is a head; other tensors named `weight` with
    two axes are linear, with more are conv. Names that speak of a norm (`norm`, `ln`, `bn`) are left alone. Give the
    model, or roles, where an output axis is not the first.
    """
    return {name: _guess(name, value) for name, value in params.items()}


def ties(model: nn.Module) -> dict[str, str]:
    """Each name of the state dict to the first name of the same tensor; a name that is not tied maps to itself."""
    first: dict[Hashable, str] = {}
    return {name: first.setdefault(memory(value), name) for name, value in model.state_dict(keep_vars=True).items()}


def working_copy(
    model: nn.Module,
    *,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
    channels_last: bool = False,
) -> nn.Module:
    """A copy of the model in evaluation mode without gradients, for members to be written into."""
    # Parameters that are cast anyway are cast as they are copied: not twice, and without the memory for both.
    cast = {id(one): _cast(one, dtype) for one in model.parameters() if dtype is not None and _casts(one, dtype)}
    twin = copy.deepcopy(model, dict[int, object](cast)).eval().requires_grad_(False)
    twin = twin.to(device=device, dtype=dtype)
    # A copy in channels-last order changes only tensors with four axes.
    return twin.to(memory_format=torch.channels_last) if channels_last else twin  # type: ignore[call-overload]


def _casts(value: nn.Parameter, dtype: torch.dtype) -> bool:
    return type(value) is nn.Parameter and value.is_floating_point() and value.dtype != dtype


def _cast(value: nn.Parameter, dtype: torch.dtype) -> nn.Parameter:
    return nn.Parameter(value.detach().to(dtype), requires_grad=False)


def tensors(model: nn.Module) -> Mapping[str, Tensor]:
    """The model's own tensors by name, to be written in place."""
    return model.state_dict(keep_vars=True)


def _own_roles(module: nn.Module) -> Iterator[tuple[str, Role]]:
    """Names of a module's own tensors that have a role, without its children's."""
    if isinstance(module, nn.ConvTranspose1d | nn.ConvTranspose2d | nn.ConvTranspose3d):
        yield "weight", Role("conv", axis=1, blocks=module.groups)
    elif isinstance(module, nn.Conv1d | nn.Conv2d | nn.Conv3d):
        yield "weight", Role("conv")
    elif isinstance(module, nn.Embedding | nn.EmbeddingBag):
        yield "weight", Role("embedding")
    elif isinstance(module, nn.Linear | nn.Bilinear):
        yield "weight", Role("linear")
    elif isinstance(module, nn.MultiheadAttention):
        for name in ("in_proj_weight", "q_proj_weight", "k_proj_weight", "v_proj_weight"):
            yield name, Role("linear")
    elif isinstance(module, nn.RNNBase | nn.RNNCellBase):
        for name, _ in module.named_parameters(recurse=False):
            if name.startswith("weight"):
                yield name, Role("linear")
    elif type(module).__name__ == "Conv1D" and hasattr(module, "nf"):
        yield "weight", Role("linear", axis=1)
    elif "norm" in type(module).__name__.lower():
        for name, _ in [*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)]:
            yield name, Role("norm")


def _untied_head(model: nn.Module) -> set[int]:
    """Identities of the output layers' weights of language models, without those tied to the embedding."""
    # Any module may be the language model: it is often wrapped in another.
    outputs = (getattr(module, "get_output_embeddings", lambda: None)() for module in model.modules())
    weights = (getattr(output, "weight", None) for output in outputs)
    heads = {id(weight) for weight in weights if isinstance(weight, Tensor)}
    return heads - {id(m.weight) for m in model.modules() if isinstance(m, nn.Embedding)}


def _guess(name: str, value: Tensor) -> Role:
    own = name.rsplit(".", 1)[-1]
    if value.ndim < 2 or not (own.startswith("weight") or own.endswith("weight")):
        return OTHER
    if "norm" in name.lower() or NORM_WORDS & set(re.split(r"[^a-z]+", name.lower())):
        return OTHER
    if "emb" in name or "wte" in name or "wpe" in name:
        return Role("embedding")
    if name.endswith("lm_head.weight"):
        return Role("head")
    return Role("linear" if value.ndim == 2 else "conv")
