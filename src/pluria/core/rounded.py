"""Rounded: members drawn from a base by stochastic rounding onto a grid, regenerated from their address.

member i rounds base member bases[i mod B] as draw i div B;  its words have group(draw) B + (i mod B) and mask(draw)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from pluria.core.family import Bits, Family, block, check_member
from pluria.numbers.coupling import Coupling, address
from pluria.numbers.format import Format, Integer
from pluria.numbers.grid import Granularity, Grid, Layout, fit_grid
from pluria.numbers.key import Key, tensor_id
from pluria.numbers.rounding import Address, round_nearest, round_rows, round_stochastic
from pluria.numbers.strata import Strata


@dataclass(frozen=True)
class Rounded:
    """A base family rounded onto a grid fitted to each base member.

    `coupling` None rounds to the nearest grid point: every draw of a base is then the same. `name` is the tensor's
    canonical name, the source of its random address. `bases` are the base members that are used in turn.
    """

    base: Family
    name: str
    format: Format
    granularity: Granularity
    layout: Layout
    key: Key
    coupling: Coupling | None
    bases: tuple[int, ...] = (0,)
    _grids: dict[int, Grid] = field(default_factory=dict, init=False, repr=False, compare=False)
    _strata: Strata | None = field(default=None, init=False, repr=False, compare=False)

    @property
    def shape(self) -> torch.Size:
        return self.base.shape

    @property
    def dtype(self) -> torch.dtype:
        return self.base.dtype

    @property
    def size(self) -> int | None:
        return None

    def write(self, member: int, out: Tensor) -> None:
        self._write(member, out, unit=False)

    def write_codes(self, member: int, out: Tensor) -> Grid:
        """Write a member's values on the unit grid into `out`, which must hold them exactly, and return its grid."""
        return self._write(member, out, unit=True)

    def write_rows(self, member: int, out: Tensor, rows: Tensor) -> None:
        """`write` for some rows of the first axis, drawn from their own addresses; the others are left as they are."""
        value, grid = self.parts(member)
        where = self.address(member)
        if where is None:
            out[rows] = round_nearest(value, grid, torch.empty_like(out))[rows]
        else:
            round_rows(value, grid, where, out, rows)

    def noted(self) -> Rounded:
        """The same members; what those that share their random words have in common is noted when they are written.

        Notes take two bytes a weight, as long as what is returned is kept. It writes one member at a time, for one
        thread, of a base that does not change. Itself, where nothing can be noted.
        """
        shared = self.coupling == "stratified" and len(self.bases) == 1 and isinstance(self.format, Integer)
        if not shared or self._strata is not None:
            return self
        made = replace(self)
        object.__setattr__(made, "_grids", self._grids)
        object.__setattr__(made, "_strata", Strata())
        return made

    def _write(self, member: int, out: Tensor, *, unit: bool) -> Grid:
        value, grid = self.parts(member)
        where = self.address(member)
        if where is None:
            round_nearest(value, grid, out, unit=unit)
        else:
            round_stochastic(value, grid, where, out, unit=unit, strata=self._strata)
        return grid

    def grid(self, member: int) -> Grid:
        """The grid that `member` is rounded onto."""
        return self.parts(member)[1]

    def parts(self, member: int) -> tuple[Tensor, Grid]:
        """The base value that `member` rounds, and its grid."""
        check_member(member, self.size)
        base = self.bases[member % len(self.bases)]
        value = base_value(self.base, base)
        if base not in self._grids:
            self._grids[base] = fit_grid(value, self.format, granularity=self.granularity, layout=self.layout)
        return value, self._grids[base]

    def address(self, member: int) -> Address | None:
        """Where the random words of `member` live; None for nearest rounding."""
        if self.coupling is None:
            return None
        draw, base = divmod(member, len(self.bases))
        group, mask = address(self.coupling, draw)
        return Address(self.key, tensor_id(self.name), group * len(self.bases) + base, mask)

    def bits(self, members: Sequence[int]) -> Bits:
        used = sorted({self.bases[member % len(self.bases)] for member in members})
        count, draws = self.layout.numel, len(set(members)) if self.coupling else len(used)
        scales = self.parts(0)[1].bits()
        planes = len(used) * (self.format.bits * count + scales) + (draws * count if self.coupling else 0)
        file = self.base.bits(used).file + 64
        return Bits(file, draws * (self.format.bits * count + scales), planes)


def base_value(family: Family, member: int) -> Tensor:
    """One member of a family as a contiguous tensor, without a copy where the family holds it so."""
    held = getattr(family, "value", None)
    if held is None and hasattr(family, "values") and getattr(family, "index", 0) is None:
        held = family.values[member]
    return held if isinstance(held, Tensor) and held.is_contiguous() else block(family, [member])[0]
