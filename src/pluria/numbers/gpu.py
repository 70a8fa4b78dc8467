"""Stochastic rounding at memory speed on a GPU: one Triton kernel that reads the base and writes a rounded member.

Bit for bit the same as the torch reference in `rounding.py`, for every integer format. What is not served (other number
systems, non-contiguous tensors, no Triton) takes the reference. The code is in `tiled.py`.
"""

from __future__ import annotations

import os
import warnings
from contextlib import AbstractContextManager, nullcontext
from functools import lru_cache
from types import ModuleType

import torch
from torch import Tensor

from pluria.numbers.format import Integer
from pluria.numbers.grid import Grid
from pluria.numbers.key import ELEMENTS, ROUNDING

READS = (torch.float32, torch.bfloat16, torch.float16)
BLOCK = 1024
"""Elements of one program; a multiple of four."""

LARGEST = 2**30
"""Most weights that may share a scale, unless all do: places inside a block are int32."""


def interpreting() -> bool:
    """Whether Triton runs its kernels as Python on a CPU (TRITON_INTERPRET=1), for tests."""
    return os.environ.get("TRITON_INTERPRET") == "1"


def available(device: torch.device) -> bool:
    """Whether Triton's kernels can fill tensors on `device`."""
    return (device.type == "cuda" or interpreting()) and not torch.compiler.is_compiling() and code() is not None


def serves(tensor: Tensor, grid: Grid, out: Tensor) -> bool:
    """Whether this kernel can round `tensor` into `out`."""
    return (
        _plain(tensor)
        and _plain(out)
        and not out.requires_grad
        and isinstance(grid.format, Integer)
        and tensor.numel() == out.numel() == grid.layout.numel <= ELEMENTS
        and (grid.scale.numel() == 1 or grid.group <= LARGEST)
        and tensor.device == out.device == grid.scale.device
        and available(tensor.device)
    )


def round_stochastic(
    tensor: Tensor, grid: Grid, key: tuple[int, int], tensor_id: int, group: int, mask: int, out: Tensor
) -> Tensor:
    """Write the rounded values of `tensor` into `out` and return it."""
    if (tiled := code()) is None:
        raise ValueError("the kernel serves no tensor, because Triton cannot be imported; ask `serves` first")
    count, layout = tensor.numel(), grid.layout
    zero, span = limits(grid)
    numbers = [signed(word) for word in (*key, tensor_id, group, ROUNDING, mask)]
    with on(tensor.device):
        if count:
            tiled.round_block[(-(-count // BLOCK),)](
                pattern(out), pattern(tensor), grid.scale.contiguous(), zero, span, count,
                grid.group, grid.scale.shape[1], layout.outer, layout.channels, layout.inner, *numbers,
                ALONE=grid.scale.numel() == 1, RUNS=layout.outer == 1, SMALL=grid.group if grid.group < BLOCK else 0,
                READ=patterned(tensor), WRITE=patterned(out), BLOCK=BLOCK, enable_fp_fusion=False,
            )  # fmt: skip
    return out


def limits(grid: Grid) -> tuple[Tensor, float]:
    """Zero points like the scales, and the distance between the ends of an integer grid."""
    form = grid.format
    if not isinstance(form, Integer):
        raise ValueError(f"the GPU's kernels know integer formats; got {form.name}")
    if grid.zero is None:
        return torch.full_like(grid.scale, float(form.top)), 2.0 * form.top
    return grid.zero.contiguous(), float(form.top)


def signed(word: int) -> int:
    """The int32 with the bits of a 32-bit word."""
    return word - 2**32 if word >= 2**31 else word


def pattern(tensor: Tensor) -> Tensor:
    """The tensor's memory: bfloat16 as int16, others as they are."""
    flat = tensor.detach()
    return flat.view(torch.int16) if flat.dtype == torch.bfloat16 else flat


def patterned(tensor: Tensor) -> bool:
    """Whether Triton's code reads and writes the tensor's memory as int16 patterns."""
    return tensor.dtype == torch.bfloat16


def on(device: torch.device) -> AbstractContextManager[object]:
    """Launches go to this device."""
    return torch.cuda.device(device) if device.type == "cuda" else nullcontext()


@lru_cache(maxsize=1)
def code() -> ModuleType | None:
    """The module of Triton's code, None where Triton cannot be imported."""
    try:
        from pluria.numbers import tiled
    except ImportError as error:
        warnings.warn(f"the GPU takes the slow path, since Triton cannot be imported ({error})", stacklevel=2)
        return None
    return tiled


def _plain(tensor: Tensor) -> bool:
    """Subclasses may hold no memory of their own; they take the reference."""
    kind = type(tensor) in (Tensor, torch.nn.Parameter)
    return kind and tensor.dtype in READS and tensor.is_contiguous()
