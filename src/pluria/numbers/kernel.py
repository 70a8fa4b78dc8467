"""Stochastic rounding at memory speed on a CPU: one fused loop compiled by Numba, on all of torch's threads.

Bit for bit the same as the torch reference in `rounding.py`, for every number system. What is not served (other devices
and dtypes, non-contiguous tensors, no Numba) takes the reference. The loops are in `compiled.py`.
"""

from __future__ import annotations

import warnings
from functools import lru_cache, partial
from types import ModuleType

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pluria.numbers.format import Integer, Minifloat, NormalFloat
from pluria.numbers.grid import Grid
from pluria.numbers.key import ELEMENTS, ROUNDING
from pluria.numbers.strata import Strata
from pluria.numbers.threads import share

READS = (torch.float32, torch.bfloat16, torch.float16)
WRITES = (torch.float32, torch.bfloat16)
NO_32, NO_16, NO_8 = np.empty(0, np.float32), np.empty(0, np.uint16), np.empty(0, np.int8)
IN_ORDER = np.empty(0, np.int64)


def available(device: torch.device | None) -> bool:
    """Whether compiled loops can fill tensors on `device` (None: the default device)."""
    kind = torch.get_default_device().type if device is None else device.type
    return kind == "cpu" and not torch.compiler.is_compiling() and _loops() is not None


def serves(tensor: Tensor, grid: Grid, out: Tensor) -> bool:
    """Whether this kernel can round `tensor` into `out`."""
    return (
        _plain(tensor, READS)
        and (_plain(out, WRITES, last=out.shape == tensor.shape) or (_plain(out, (torch.int8,)) and _whole(grid)))
        and not out.requires_grad
        and isinstance(grid.format, Integer | Minifloat | NormalFloat)
        and tensor.numel() == out.numel() == grid.layout.numel <= ELEMENTS
        and grid.scale.shape == (grid.layout.rows, grid.layout.inputs // grid.group)
        and grid.scale.device.type == "cpu"
        and available(tensor.device)
    )


def round_stochastic(
    tensor: Tensor,
    grid: Grid,
    key: tuple[int, int],
    tensor_id: int,
    group: int,
    mask: int,
    out: Tensor,
    *,
    unit: bool = False,
    rows: Tensor | None = None,
    strata: Strata | None = None,
) -> Tensor:
    """Write the rounded values of `tensor` (without their scale, if `unit`) into `out` and return it.

    rows     int64: only these of the first axis, whose elements are a multiple of four; in this thread alone
    strata   notes of integers, for one tensor's members whose addresses differ in their masks alone; not for rows
    """
    loops = _loops()
    if loops is None:
        raise ValueError("the kernel serves no tensor, because Numba cannot be imported; ask `serves` first")
    source, target = _arrays(tensor)[:2], _arrays(out)
    scale, zero, kind, rule = _rule(grid, loops)
    address = np.array([*key, tensor_id, group, ROUNDING, mask], np.uint64)
    memory = (*target, *source, tensor.dtype == torch.float16, _order(out))
    rules = (scale, zero, _layout(grid), kind, rule)
    if rows is not None:
        loops.round_rows(memory, rules, address, unit, rows.numpy(), tensor[0].numel())
        return out
    if strata is None or kind != loops.INTEGER:
        work = partial(loops.round_range, memory, rules, address, unit)
    else:
        notes = strata.arrays(tensor.numel(), loops.BLOCK)
        work = partial(_noted().round_noted, memory, rules, notes, address, unit)
    share(work, tensor.numel(), loops.BLOCK)
    return out


def words(key: tuple[int, int], tensor_id: int, group: int, stream: int, start: int, stop: int) -> Tensor:
    """Random words of elements start..stop-1, as `philox.words` gives them: int64 on the CPU."""
    loops = _loops()
    if loops is None:
        raise ValueError("no words without Numba; ask `available` first")
    first = start // 4
    filled = np.empty(-(-(stop - 4 * first) // 8) * 8, np.uint32)
    loops.fill_words(filled, np.uint64(first), np.array([*key, tensor_id, group, stream], np.uint64))
    return torch.from_numpy(filled[start - 4 * first :][: stop - start].astype(np.int64))


@lru_cache(maxsize=1)
def _loops() -> ModuleType | None:
    try:
        from pluria.numbers import compiled
    except ImportError as error:
        warnings.warn(f"rounding takes the slow path, since Numba cannot be imported ({error})", stacklevel=2)
        return None
    return compiled


@lru_cache(maxsize=1)
def _noted() -> ModuleType:
    from pluria.numbers import compiled_strata

    return compiled_strata


def _plain(tensor: Tensor, dtypes: tuple[torch.dtype, ...], *, last: bool = False) -> bool:
    """Subclasses may hold no memory of their own; they take the reference. `last`: channels may lie last in memory."""
    kind = type(tensor) in (Tensor, torch.nn.Parameter)
    dense = tensor.is_contiguous() or (last and _channels_last(tensor))
    return kind and tensor.device.type == "cpu" and tensor.dtype in dtypes and dense


def _whole(grid: Grid) -> bool:
    """Whether codes are whole numbers that int8 holds."""
    return isinstance(grid.format, Integer) and grid.zero is None


def _channels_last(tensor: Tensor) -> bool:
    return tensor.ndim == 4 and tensor.is_contiguous(memory_format=torch.channels_last)


def _arrays(tensor: Tensor) -> tuple[NDArray[np.float32], NDArray[np.uint16], NDArray[np.int8]]:
    """The tensor's memory as float32, as 16-bit patterns or as int8; the others of the three are empty."""
    tensor = tensor.detach() if tensor.is_contiguous() else tensor.detach().permute(0, 2, 3, 1)
    flat = tensor.view(-1)
    if flat.dtype == torch.float32:
        return flat.numpy(), NO_16, NO_8
    if flat.dtype == torch.int8:
        return NO_32, NO_16, flat.numpy()
    return NO_32, flat.view(torch.int16).numpy().view(np.uint16), NO_8


def _order(out: Tensor) -> NDArray[np.int64]:
    """Channels and places of a tensor whose channels lie last in memory, nothing for a contiguous one."""
    return IN_ORDER if out.is_contiguous() else np.array([out.shape[1], out[0, 0].numel()], np.int64)


def _layout(grid: Grid) -> NDArray[np.int64]:
    """Shape, group and the strides of `_flat` scales (see `compiled.spread`)."""
    layout, groups = grid.layout, grid.scale.shape[1]
    strides = (1, layout.rows) if layout.inner == 1 else (groups, 1)
    return np.array([layout.outer, layout.channels, layout.inner, grid.group, *strides], np.int64)


def _flat(grid: Grid, table: Tensor) -> NDArray[np.float32]:
    """Scales or zero points `[rows, groups]`, flat; rows last where neighbours in memory are neighbouring channels."""
    ordered = table.detach().t() if grid.layout.inner == 1 else table.detach()
    return ordered.contiguous().view(-1).numpy()


def _rule(grid: Grid, loops: ModuleType) -> tuple[NDArray[np.float32], NDArray[np.float32], int, NDArray[np.float32]]:
    """Scales, zero points, the kind of grid and its numbers (see `compiled.round_range`)."""
    scale, form = _flat(grid, grid.scale), grid.format
    if isinstance(form, Integer):
        symmetric = grid.zero is None
        zero = np.full_like(scale, form.top) if grid.zero is None else _flat(grid, grid.zero)
        return scale, zero, loops.INTEGER, np.array([form.top * (1 + symmetric)], np.float32)
    if isinstance(form, Minifloat):
        numbers = [form.largest, 2.0 ** (2 - 2 ** (form.exponent - 1)), 2.0**-form.mantissa]
        return scale, np.zeros_like(scale), loops.MINIFLOAT, np.array(numbers, np.float32)
    levels = form.decode(torch.arange(loops.LEVELS, device="cpu"), None)
    return scale, np.zeros_like(scale), loops.TABLE, levels.numpy()
