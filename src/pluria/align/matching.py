"""Which place of one network answers to which of another: an assignment for each group of axes.

    weights       places that make  sum over tensors <reference, permuted member>  as large as they can, one group after
                  another, until none gains: every step is exact, the whole a local optimum
    activations   places whose activations, read by the same layers on the same inputs, are most correlated

A group with others within it (attention's heads, and the values in each) is matched with them: what a pair of heads is
worth is the best match of what lies inside. Source: Ainsworth, Hayase and Srinivasa, "Git Re-Basin", ICLR 2023.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from pluria.align.groups import Groups, Places, Run, Spot, along, laid_out, permuted, spots
from pluria.core.params import Params
from pluria.numbers.key import ORDER, Key, tensor_id
from pluria.numbers.philox import words

SWEEPS = 100
GROUPS = "\0groups"


@dataclass
class Likeness:
    """How alike places are: `rows[i, j]` of a group, `inner[child][i, j, d, e]` of what lies within."""

    rows: Tensor
    inner: dict[str, Tensor] = field(default_factory=dict)

    def assign(self) -> tuple[Tensor, dict[str, Tensor]]:
        """The best places of the group, and those within each of its places."""
        size, rows = len(self.rows), self.rows.clone()
        best: dict[str, Tensor] = {}
        for child, table in self.inner.items():
            best[child] = torch.stack([torch.stack([best_places(pair) for pair in line]) for line in table])
            rows += table.gather(-1, best[child].unsqueeze(-1)).sum((-1, -2))
        places = best_places(rows)
        return places, {child: found[torch.arange(size), places] for child, found in best.items()}


def best_places(rows: Tensor) -> Tensor:
    """For each row the column it is assigned to, so that the sum of `rows[i, places[i]]` is largest."""
    try:
        from scipy.optimize import linear_sum_assignment
    except ImportError:
        raise ImportError("matching networks needs scipy: pip install 'pluria[align]'") from None
    return torch.from_numpy(linear_sum_assignment(rows.numpy(), maximize=True)[1])


def match_weights(reference: Params, member: Params, groups: Groups, key: Key) -> Places:
    """Places of `member` that fit `reference`; all stay where nothing gains. Tensors of both are on the CPU."""
    pair = _Pair(groups, _wide(reference, groups), _wide(member, groups))
    stay = _descend(pair, groups.identity(), key)
    grown = _descend(pair, _grown(pair), key)
    return grown if pair.total(grown) > pair.total(stay) * (1 + 1e-9) else stay


@dataclass(frozen=True)
class _Pair:
    """Two networks in float64, and the table."""

    groups: Groups
    reference: Params
    member: Params

    def total(self, places: Places, names: Sequence[str] | None = None) -> float:
        """The inner product of the reference with the member permuted."""
        moved = permuted({name: self.member[name] for name in names or self.member}, self.groups, places)
        return sum(float((self.reference[name] * value).sum()) for name, value in moved.items())

    def touched(self, group: str) -> list[str]:
        """Tensors in which a group stands."""
        return [name for name in self.member if any(spots(self.groups.runs(name), group, self.groups))]

    def best(self, group: str, places: Places, names: Sequence[str]) -> dict[str, Tensor]:
        """The best places of a group, all others being as they are, judged on these tensors alone."""
        if group in self.groups.within:
            return {group: self._inner(group, places, names)}
        own, inner = self._likeness(group, places, names).assign()
        return {group: own, **inner}

    def _likeness(self, group: str, places: Places, names: Sequence[str]) -> Likeness:
        table, free = empty(group, self.groups), {group, *self.groups.children(group)}
        for name in names:
            runs = self.groups.runs(name)
            for wanted in joint_spots(runs, group, self.groups):
                add(table, wanted, *self._both(name, runs, wanted, free, places), self.groups)
        return table

    def _inner(self, child: str, places: Places, names: Sequence[str]) -> Tensor:
        parent, size = self.groups.within[child], self.groups.sizes[child]
        table = torch.zeros(self.groups.sizes[parent], size, size, dtype=torch.float64)
        for name in names:
            runs = self.groups.runs(name)
            for spot in spots(runs, child, self.groups):
                wanted = {parent: spot, child: spot}
                one, other = self._both(name, runs, wanted, {child}, places)
                table += torch.einsum("hdr,her->hde", one, other)
        return torch.stack([best_places(rows) for rows in table])

    def _both(
        self, name: str, runs: Sequence[Sequence[Run]], wanted: Mapping[str, Spot], free: set[str], places: Places
    ) -> tuple[Tensor, Tensor]:
        """A tensor of both networks laid out; the member permuted, but for what is free along the axis in question."""
        value = self.member[name]
        own = {spot.axis for spot in wanted.values()}
        for axis, several in enumerate(runs):
            held = {g: p for g, p in places.items() if axis not in own or g not in free}
            value = along(value, axis, several, self.groups, held)
        return laid_out(self.reference[name], wanted, self.groups), laid_out(value, wanted, self.groups)


def empty(group: str, groups: Groups) -> Likeness:
    """No likeness of anything yet."""
    size, sizes = groups.sizes[group], groups.sizes
    kids = {c: torch.zeros(size, size, sizes[c], sizes[c], dtype=torch.float64) for c in groups.children(group)}
    return Likeness(torch.zeros(size, size, dtype=torch.float64), kids)


def joint_spots(runs: Sequence[Sequence[Run]], group: str, groups: Groups) -> Iterator[dict[str, Spot]]:
    """Where a group stands, together with the one within it that stands there too; with two of them, neither counts."""
    for spot in spots(runs, group, groups):
        kids = {
            c: s for c in groups.children(group) for s in spots(runs, c, groups) if s == spot or s.axis != spot.axis
        }
        if len(kids) < 2:
            yield {group: spot, **kids}


def add(table: Likeness, wanted: Mapping[str, Any], one: Tensor, other: Tensor, groups: Groups) -> None:
    """Add the products of what is laid out."""
    if len(wanted) == 1:
        table.rows += one @ other.T
    else:
        table.inner[list(wanted)[1]] += torch.einsum("hdr,ger->hgde", one, other)


def _descend(pair: _Pair, start: Places, key: Key) -> Places:
    """Groups in random order, each matched with all others as they are, until none gains."""
    places, names = dict(start), list(start)
    for sweep in range(SWEEPS):
        draw = words(key, tensor=tensor_id(GROUPS), group=sweep, stream=ORDER, start=0, stop=len(names))
        gained = False
        for group in (names[i] for i in draw.argsort()):
            touched = pair.touched(group)
            tried = {**places, **pair.best(group, places, touched)}
            before, after = (pair.total(p, touched) for p in (places, tried))
            if after > before + 1e-9 * abs(before):
                places, gained = tried, True
        if not gained:
            break
    return places


def _grown(pair: _Pair) -> Places:
    """Places found from the fixed ends inwards: each group is judged by tensors whose other groups are done."""
    places, groups = pair.groups.identity(), pair.groups
    left = [group for group in places if group not in groups.within]
    while left:
        known = {group: _known(pair, group, left) for group in left}
        group = max(left, key=lambda g: sum(pair.member[name].numel() for name in known[g]))
        places.update(pair.best(group, places, known[group] or pair.touched(group)))
        left.remove(group)
    return places


def _known(pair: _Pair, group: str, left: Sequence[str]) -> list[str]:
    """Tensors of a group in which no other group is still left."""
    open_groups = {*left} - {group}
    touched = (
        (name, {f for runs in pair.groups.runs(name) for run in runs for f in run}) for name in pair.touched(group)
    )
    return [name for name, factors in touched if not factors & open_groups]


def _wide(params: Params, groups: Groups) -> dict[str, Tensor]:
    return {name: value.to(torch.float64) for name, value in params.items() if name in groups.axes}
