"""Coded: members kept as packed codes, either each with its own codes or as shared floor codes and one bit plane each.

own codes   value = decode(codes[i])              K b bits per weight
planes      value = decode(codes[0] + plane[i])   b + K bits per weight: stochastic rounding moves up by one or stays
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import InitVar, dataclass, replace

import torch
from torch import Tensor

from pluria.core.family import Bits, Family, check_member, kept_bits
from pluria.core.rounded import Rounded
from pluria.numbers.grid import Grid
from pluria.numbers.packing import pack, unpack
from pluria.numbers.rounding import codes as codes_of
from pluria.numbers.rounding import decode, floor_codes

CHUNK = 2**20
"""Elements decoded at a time, so that no temporary has a tensor's size; a multiple of eight, for whole bytes."""


@dataclass(frozen=True)
class Coded:
    """Codes as packed bytes, uint8 `[K, bytes]` (one row where there are `planes`, uint8 `[K, bytes]` of single bits).

    `grids` is one grid for all members, or one for each. `dims` and `kind` are shape and dtype. `clipped` is the share
    of weights that met an end of the grid where codes were made with error feedback, None where they were not or where
    it is not known: it is no part of the value, and files do not keep it.
    """

    grids: tuple[Grid, ...]
    codes: Tensor
    planes: Tensor | None
    dims: tuple[int, ...]
    kind: str
    # Not a field, so that it is neither compared nor written; `replace` and pickles carry it all the same.
    clipped: InitVar[float | None] = None

    def __post_init__(self, clipped: float | None) -> None:
        object.__setattr__(self, "clipped", clipped)

    @property
    def shape(self) -> torch.Size:
        return torch.Size(self.dims)

    @property
    def dtype(self) -> torch.dtype:
        return getattr(torch, self.kind)  # type: ignore[no-any-return]

    @property
    def size(self) -> int | None:
        return len(self.codes if self.planes is None else self.planes)

    def write(self, member: int, out: Tensor) -> None:
        self._write(member, out, self.grid(member))

    def write_codes(self, member: int, out: Tensor) -> Grid:
        """Write a member's values on the unit grid into `out`, which must hold them exactly, and return its grid."""
        grid = self.grid(member)
        self._write(member, out, replace(grid, scale=torch.ones_like(grid.scale)))
        return grid

    def grid(self, member: int) -> Grid:
        """The grid of a member's codes."""
        check_member(member, self.size)
        return self.grids[member if len(self.grids) > 1 else 0]

    def _write(self, member: int, out: Tensor, grid: Grid) -> None:
        straight = out.is_contiguous()
        target = out if straight else torch.empty(self.shape, dtype=out.dtype, device=out.device)
        flat = target.view(-1)
        for start in range(0, flat.numel(), CHUNK):
            code = self._codes(member, start, min(start + CHUNK, flat.numel()))
            flat[start : start + len(code)] = decode(
                code, grid, torch.empty(len(code), dtype=torch.float32, device=code.device), start=start
            )
        if not straight:
            out.copy_(target)

    def _codes(self, member: int, start: int, stop: int) -> Tensor:
        """Codes of the flat elements start..stop-1 of a member."""

        def part(packed: Tensor, bits: int) -> Tensor:
            return unpack(packed[start * bits // 8 : (stop * bits + 7) // 8], bits, stop - start)

        own = part(self.codes[0 if self.planes is not None else member], self.grids[0].format.bits)
        return own if self.planes is None else own + part(self.planes[member], 1)

    def bits(self, members: Sequence[int]) -> Bits:
        scales = sum(grid.bits() for grid in self.grids)
        count, bits = self.shape.numel(), self.grids[0].format.bits
        each = bits * count + self.grids[0].bits()
        # One member that is seen several times, as under several views, is kept once.
        several = len(set(members))
        # Only planes say that members have a floor in common: after feedback two may lie more than one step apart.
        shared = several * each if self.planes is None else (bits + several) * count + scales
        return Bits(kept_bits([self]), several * each, shared)


def pack_members(family: Rounded, members: Sequence[int]) -> Coded:
    """The members of a rounded family, each with its own packed codes."""
    rows, grids = [], []
    for member in members:
        value, grid = family.parts(member)
        rows.append(pack(codes_of(value, grid, family.address(member)), grid.format.bits))
        grids.append(grid)
    held = tuple(grids[:1]) if len(family.bases) == 1 else tuple(grids)
    return Coded(held, torch.stack(rows), None, tuple(family.shape), _name(family.dtype))


def pack_planes(family: Rounded, members: Sequence[int]) -> Coded:
    """The members of a rounded family with one base as shared floor codes and one bit plane each.

    Raises ValueError for several bases or nearest rounding, which have no shared floor.
    """
    if len(family.bases) > 1 or family.coupling is None:
        raise ValueError("bit planes need stochastic rounding of one base; pack the members one by one")
    value, grid = family.parts(0)
    floor = floor_codes(value, grid)
    planes = [pack(codes_of(value, grid, family.address(member)) - floor, 1) for member in members]
    floor_packed = pack(floor, grid.format.bits).unsqueeze(0)
    return Coded((grid,), floor_packed, torch.stack(planes), tuple(family.shape), _name(family.dtype))


def keep_codes(rows: Sequence[Tensor], grid: Grid, like: Family, *, clipped: float | None = None) -> Coded:
    """Members from their codes, each flat in the order of the tensor `like`, all on one grid."""
    codes = torch.stack([pack(row, grid.format.bits) for row in rows])
    return Coded((grid,), codes, None, tuple(like.shape), _name(like.dtype), clipped)


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
