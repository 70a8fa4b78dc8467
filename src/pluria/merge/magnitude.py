"""The k largest magnitudes of a tensor, exactly: a mask of k elements, whatever is equal and however it is cut.

    histogram of the upper bits of |x|  ->  of the bits below, in the bin of the k-th largest  ->  ...  ->  threshold
    of several that equal the threshold, those with the smallest index are taken

Nothing is sorted, and histograms add up over pieces. There are three passes for float32 and five for float64; passes
that would decide nothing any more are left out.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from pluria.merge.rule import Pass, Piece
from pluria.numbers import members
from pluria.numbers.members import Bounds, Differences
from pluria.numbers.radix import BITS, histogram, patterns

LEVELS = {31: (15, 16), 63: (16, 16, 16, 15)}
"""Bits that each histogram tells apart, by the width of the patterns; the first one's size says which it is."""

EVERYWHERE = 2**62
"""An index behind every element."""

Values = Callable[[Piece], Tensor | Differences]
"""What is ranked: `[R, n]` float32 or float64."""

Counts = Callable[[int], Tensor]
"""How many are taken: (elements of the scope) -> integers that broadcast to `[J, R]`, J selections at once."""


@dataclass(frozen=True)
class Largest:
    """The largest magnitudes of each row, found so far.

    width    bits of a pattern
    prefix   int64 `[J, R]`, upper bits of the smallest magnitude that is taken
    shift    how many bits are below
    left     int64 `[J, R]`, how many of those that share the prefix are taken; the larger ones all are
    shared   int64 `[J, R]`, how many share it
    room     int64 `[pieces, J, R]` and
    ties     int64 `[pieces, J, R]`: how many of a piece share it, and of those are taken; None where all are, or none
    """

    width: int
    prefix: Tensor
    shift: int
    left: Tensor
    shared: Tensor
    ties: Tensor | None = None
    room: Tensor | None = None

    @property
    def decided(self) -> bool:
        """Whether the prefix alone decides: of those that share it, all are taken or none."""
        return bool(((self.left == 0) | (self.left == self.shared)).all())

    def mask(self, piece: Piece, values: Tensor) -> Tensor:
        """bool `[J, R, n]`: which elements of a piece are taken; `values` `[R, n]` are those that were ranked."""
        words, (low, high, cut) = patterns(values), self._bounds(piece, values)
        taken = torch.empty((*low.shape, words.shape[1]), dtype=torch.bool, device=words.device)
        for j, r in itertools.product(range(len(low)), range(len(words))):
            at = int(cut[j, r])
            torch.ge(words[r, :at], int(low[j, r]), out=taken[j, r, :at])
            torch.ge(words[r, at:], int(high[j, r]), out=taken[j, r, at:])
        return taken

    def trimmed(self, piece: Piece, values: Tensor) -> Tensor:
        """`[R, n]`: `values` where the first selection takes them, else zero; their memory is used."""
        if members.serves(values, torch.float32, torch.float64):
            members.keep(values, self.bounds(piece, values))
            return values
        return values.masked_fill_(~self.mask(piece, values)[0], 0.0)

    def bounds(self, piece: Piece, values: Tensor | Differences) -> Bounds:
        """What the first selection takes of a piece, int64 `[R]` each."""
        low, high, cut = self._bounds(piece, values)
        return low[0], high[0], cut[0]

    def _bounds(self, piece: Piece, values: Tensor | Differences) -> Bounds:
        """int64 `[J, R]` each: patterns from `low` on are taken before the index `cut`, from `high` on behind it."""
        (low, high), (cuts, split) = self._limits, self._cuts
        place = piece.number if len(cuts) > 1 else 0
        cut = cuts[place]
        if place in split:
            cut, left = cut.clone(), self._left[place]
            for j, r in split[place]:
                same = patterns(values[r]) >> self.shift == self.prefix[j, r]
                cut[j, r] = same.nonzero()[int(left[j, r]) - 1, 0] + 1
        return low, high, cut

    @cached_property
    def _limits(self) -> tuple[Tensor, Tensor]:
        """The smallest pattern with the prefix, and the smallest above them, `[J, R]` each; the greatest is kept."""
        low, high = (((self.prefix + more) << self.shift).clamp(max=2**self.width - 1) for more in (0, 1))
        return low, high

    @property
    def _left(self) -> Tensor:
        """How many of those that share the prefix are taken, `[pieces, J, R]`, or `[1, J, R]` if it is all or none."""
        return self.left[None] if self.room is None else self.room

    @cached_property
    def _cuts(self) -> tuple[Tensor, dict[int, list[list[int]]]]:
        """Where they end, as far as that is at an end; and in which pieces, selections and rows it lies between."""
        shared, left = self.shared[None] if self.ties is None else self.ties, self._left
        split: dict[int, list[list[int]]] = {}
        for place, j, r in ((left > 0) & (left < shared)).nonzero().tolist():
            split.setdefault(place, []).append([j, r])
        return torch.where(left < shared, 0, EVERYWHERE), split


def largest(values: Values, counts: Counts, *, nonzero: bool = False) -> tuple[Pass, ...]:
    """Passes whose statistics are a `Largest`: of each row of `values(piece)`, the `counts` largest magnitudes.

    Counts are cut to what there is. They are of a tensor, or of the whole model where that is the rule's scope. With
    `nonzero` they are asked for the number of elements of the first row that are not zero, which are normal numbers.
    """

    def first(piece: Piece, _: Any, known: Tensor | None) -> Tensor:
        held = values(piece)
        total = BITS[held.dtype]
        bits = LEVELS[total][0]
        return histogram(held, torch.zeros((1, len(held)), dtype=torch.int64), total - bits, bits, known)

    def started(total: Tensor, _: Any) -> Largest:
        width = next(width for width, levels in LEVELS.items() if 2 ** levels[0] == total.shape[-1])
        number = int(total[0, 0, int(nonzero) :].sum())
        wanted = counts(number).clamp(0, number)
        wide = total.expand(len(wanted), -1, -1)
        start = Largest(width, torch.zeros_like(wide[..., 0]), width, wanted.expand(wide.shape[:2]), wide.sum(-1))
        return _narrowed(wide, start)

    def level(piece: Piece, found: Largest, known: Tensor | None) -> Tensor:
        bits = min(16, found.shift)
        return histogram(values(piece), found.prefix, found.shift - bits, bits, known)

    def ties(piece: Piece, found: Largest) -> Tensor:
        return histogram(values(piece), found.prefix, found.shift, 0)[..., 0]

    finer = Pass(level, _narrowed, lambda found: found.shift > 0 and not found.decided, counts=True)
    equal = Pass(ties, _shared_out, lambda found: not found.decided, stacked=True)
    return Pass(first, started, counts=True), finer, finer, finer, equal


def _narrowed(counted: Tensor, found: Largest) -> Largest:
    """The selection with one level of bits more, from a histogram `[J, R, bins]` inside its prefix."""
    bins = counted.shape[-1]
    above = counted.flip(-1).cumsum(-1)
    place = (above < found.left[..., None]).sum(-1, keepdim=True)
    own = counted.flip(-1).gather(-1, place)
    left = found.left - (above.gather(-1, place) - own)[..., 0]
    prefix = found.prefix * bins + (bins - 1 - place[..., 0])
    return Largest(found.width, prefix, found.shift - (bins.bit_length() - 1), left, own[..., 0])


def _shared_out(ties: Tensor, found: Largest) -> Largest:
    """How many of those that equal the threshold each piece takes, `[pieces, J, R]`: the first come first."""
    before = ties.cumsum(0) - ties
    return replace(found, ties=ties, room=torch.minimum((found.left - before).clamp(min=0), ties))
