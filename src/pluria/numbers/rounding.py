"""Rounding onto a grid: to the nearest point, or up with the exact probability of being unbiased.

    v = w / s,  low <= v <= high on the grid,  p = (v - low) / (high - low)
    nearest     high where p > 1/2 (ties to the even code)        stochastic  high where u < p, u uniform on 24 bits
    E[rounded] = w;  Var = s^2 p (1 - p) (high - low)^2, where nothing clips

Plain chunked torch: the reference on every device. `kernel.py` gives the same bits at memory speed on a CPU, and
`gpu.py` on a GPU.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from pluria.numbers import gpu, kernel
from pluria.numbers.format import Integer
from pluria.numbers.grid import Grid
from pluria.numbers.key import ROUNDING, Key
from pluria.numbers.philox import uniforms, words
from pluria.numbers.strata import Strata

CHUNK = {"cpu": 2**16}
"""Elements at a time, so that temporaries stay in the cache; 2^22 on devices that want large steps."""


@dataclass(frozen=True)
class Address:
    """Where the words of one member of one tensor live: key, tensor id, group and mask (see `coupling.py`)."""

    key: Key
    tensor: int
    group: int
    mask: int


def round_stochastic(
    tensor: Tensor, grid: Grid, address: Address, out: Tensor, *, unit: bool = False, strata: Strata | None = None
) -> Tensor:
    """Write the rounded values of `tensor` into `out` of the same shape and return it; `unit`: without their scale.

    `out` may have any dtype, device and memory format. The kernel serves contiguous and channels-last ones, and keeps
    in `strata` what members whose addresses differ in their masks alone have in common.
    """
    place = (address.key.words, address.tensor, address.group, address.mask)
    if kernel.serves(tensor, grid, out):
        return kernel.round_stochastic(tensor, grid, *place, out, unit=unit, strata=strata)
    if not unit and gpu.serves(tensor, grid, out):
        return gpu.round_stochastic(tensor, grid, *place, out)
    return _round(tensor, grid, address, out, unit)


def round_rows(tensor: Tensor, grid: Grid, address: Address, out: Tensor, rows: Tensor) -> Tensor:
    """`round_stochastic` for some rows, int64, of the first axis; the others in `out` are left as they are.

    Raises IndexError for a row that does not exist.
    """
    if rows.numel() and not 0 <= int(rows.min()) <= int(rows.max()) < len(tensor):
        raise IndexError(f"there are rows 0..{len(tensor) - 1}; got {int(rows.min())} to {int(rows.max())}")
    if kernel.serves(tensor, grid, out) and out.is_contiguous() and tensor.shape[1:].numel() % 4 == 0:
        place = (address.key.words, address.tensor, address.group, address.mask)
        return kernel.round_stochastic(tensor, grid, *place, out, rows=rows)
    out[rows] = round_stochastic(tensor, grid, address, torch.empty_like(out))[rows]
    return out


def round_nearest(tensor: Tensor, grid: Grid, out: Tensor, *, unit: bool = False) -> Tensor:
    """Write the nearest grid values into `out`, ties to the even code, and return it; `unit`: without their scale."""
    return _round(tensor, grid, None, out, unit)


def codes(tensor: Tensor, grid: Grid, address: Address | None) -> Tensor:
    """Codes of the rounded tensor, int64, flat in the tensor's order; `address` None rounds to the nearest."""
    parts = []
    for _, unit, _, zero in _rounded(tensor, grid, address):
        parts.append(grid.format.encode(unit, zero))
    return torch.cat(parts)


def floor_codes(tensor: Tensor, grid: Grid) -> Tensor:
    """Codes of the lower neighbours, int64, flat: what all stochastically rounded members share."""
    flat = tensor.detach().reshape(-1)
    parts = []
    for start, stop in _chunks(flat):
        scale, zero = grid.spread(start, stop)
        low, _ = grid.format.neighbours(flat[start:stop].to(torch.float32) / scale, zero)
        parts.append(grid.format.encode(low, zero))
    return torch.cat(parts)


def decode(code: Tensor, grid: Grid, out: Tensor, *, start: int = 0) -> Tensor:
    """Write the values of flat codes, the first of them that of element `start`, into `out` and return it."""
    flat = out.view(-1)
    for low, high in _chunks(flat):
        scale, zero = grid.spread(start + low, start + high)
        flat[low:high] = grid.format.decode(code[low:high], zero) * scale
    return out


def variance(tensor: Tensor, grid: Grid) -> Tensor:
    """Variance of stochastic rounding, s^2 p (1 - p) (high - low)^2, float32, in the tensor's shape."""
    flat = tensor.detach().reshape(-1)
    out = torch.empty(flat.shape, dtype=torch.float32, device=flat.device)
    for start, stop in _chunks(flat):
        scale, zero = grid.spread(start, stop)
        v, low, high = _neighbours(flat[start:stop], grid, scale, zero)
        out[start:stop] = scale * scale * (v - low) * (high - v)
    return out.view(tensor.shape)


def clipped(tensor: Tensor, grid: Grid) -> int:
    """How many weights lie beyond the grid, by more than the rounding error of w / s."""
    flat = tensor.detach().reshape(-1)
    total = 0
    for start, stop in _chunks(flat):
        scale, zero = grid.spread(start, stop)
        v = flat[start:stop].to(torch.float32) / scale
        low, high = grid.format.neighbours(v, zero)
        beyond = (v - high).clamp(min=0) + (low - v).clamp(min=0)
        total += int((beyond > v.abs() * 2.0**-20).sum())
    return total


def _chunks(flat: Tensor) -> Iterator[tuple[int, int]]:
    size = CHUNK.get(flat.device.type, 2**22)
    for start in range(0, flat.numel(), size):
        yield start, min(start + size, flat.numel())


def _neighbours(part: Tensor, grid: Grid, scale: Tensor, zero: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    v = part.to(torch.float32) / scale
    low, high = grid.format.neighbours(v, zero)
    return torch.minimum(torch.maximum(v, low), high), low, high


def _rounded(
    tensor: Tensor, grid: Grid, address: Address | None
) -> Iterator[tuple[slice, Tensor, Tensor, Tensor | None]]:
    """Chunks of (where, values on the unit grid, scale, zero point)."""
    flat = tensor.detach().reshape(-1)
    for start, stop in _chunks(flat):
        scale, zero = grid.spread(start, stop)
        v, low, high = _neighbours(flat[start:stop], grid, scale, zero)
        up = (v - low) / torch.where(high > low, high - low, 1.0)  # subnormal gaps (bf16) divide as they are
        if address is None:
            odd = grid.format.encode(low, zero) - grid.format.encode(torch.zeros_like(low), zero)
            chosen = (up > 0.5) | ((up == 0.5) & (odd % 2 == 1))
        else:
            chosen = uniforms_at(address, start, stop, flat.device) < up
        # Adding zero turns -0.0 into 0.0: a code of zero has one bit pattern on every back end.
        yield slice(start, stop), torch.where(chosen, high, low) + 0.0, scale, zero


def uniforms_at(address: Address, start: int, stop: int, device: torch.device) -> Tensor:
    """The member's uniforms for the flat elements start..stop-1."""
    word = words(
        address.key,
        tensor=address.tensor,
        group=address.group,
        stream=ROUNDING,
        start=start,
        stop=stop,
        device=device,
    )
    return uniforms(word ^ (address.mask << 8))


def _round(tensor: Tensor, grid: Grid, address: Address | None, out: Tensor, unit: bool = False) -> Tensor:
    straight = out.is_contiguous() and out.device == tensor.device
    target = out if straight else torch.empty(tensor.shape, dtype=out.dtype, device=tensor.device)
    flat = target.view(-1)
    for where, value, scale, _ in _rounded(tensor, grid, address):
        flat[where] = (value if unit else value * scale).to(out.dtype)
    return out if straight else out.copy_(target)


__all__ = [
    "Address",
    "Integer",
    "clipped",
    "codes",
    "decode",
    "floor_codes",
    "round_nearest",
    "round_rows",
    "round_stochastic",
    "uniforms_at",
    "variance",
]
