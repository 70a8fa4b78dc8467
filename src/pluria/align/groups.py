"""Which axes of a network's tensors are permuted together, as plain data that may also be written by hand.

    axes     {"conv1.weight": ("stream", "3", "9"), "q.weight": ("heads*keys", "stream"), "wide.bias": ("8 + a + 8",)}
    sizes    {"stream": 64, "heads": 4, "keys": 16, ...}
    within   {"keys": "heads"}: a permutation of its own inside each head, which moves with the head

An axis is a sum of runs, a run is a product of factors, the outermost first, and a factor is the name of a group or a
number of places that stay. Ainsworth, Hayase and Srinivasa, "Git Re-Basin", ICLR 2023, write such a table by hand.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

import torch
from torch import Tensor

from pluria.core.params import Params

Run = tuple[str, ...]
Places = Mapping[str, Tensor]
"""For each group where its places come from: `[n]`, or `[heads, n]` for a group within another."""


@dataclass(frozen=True)
class Groups:
    """The table. Tensors that are left out have no axis that may be permuted.

    >>> table = Groups({"a.weight": ("hidden", "4"), "b.weight": ("3", "hidden")}, {"hidden": 5})
    >>> table.runs("a.weight")
    [[('hidden',)], [('4',)]]
    """

    axes: Mapping[str, tuple[str, ...]]
    sizes: Mapping[str, int]
    within: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("axes", "sizes", "within"):
            object.__setattr__(self, name, MappingProxyType(dict(getattr(self, name))))
        for tensor in self.axes:
            for run in (run for runs in self.runs(tensor) for run in runs):
                self._check(tensor, run)
        for group, parent in self.within.items():
            if parent not in self.sizes or parent in self.within:
                raise ValueError(f"group {group!r} is within {parent!r}, which is no group or itself within another")

    def runs(self, tensor: str) -> list[list[Run]]:
        """The runs of each axis of a tensor."""
        return [runs_of(axis) for axis in self.axes[tensor]]

    def size(self, factor: str) -> int:
        """How many places a factor has."""
        return int(factor) if factor.isdecimal() else self.sizes[factor]

    def length(self, runs: Sequence[Run]) -> int:
        """How many places an axis of these runs has."""
        return sum(math.prod(map(self.size, run)) for run in runs)

    def identity(self) -> dict[str, Tensor]:
        """Every place stays."""
        found = {}
        for group, size in self.sizes.items():
            rows = torch.arange(size)
            found[group] = rows.repeat(self.sizes[self.within[group]], 1) if group in self.within else rows
        return found

    def children(self, group: str) -> list[str]:
        """The groups within a group."""
        return [child for child, parent in self.within.items() if parent == group]

    def _check(self, tensor: str, run: Run) -> None:
        for place, factor in enumerate(run):
            if not factor.isdecimal() and factor not in self.sizes:
                raise ValueError(f"tensor {tensor!r}: there is no group {factor!r}; there are {', '.join(self.sizes)}")
            if self.within.get(factor, run[0]) not in run[: place + 1]:
                raise ValueError(
                    f"tensor {tensor!r}: {factor!r} is within {self.within[factor]!r}, so it is written behind it, "
                    f"'{self.within[factor]}*{factor}'; got {'*'.join(run)!r}"
                )


def runs_of(axis: str) -> list[Run]:
    """The runs of an axis that is written as text."""
    return [tuple(factor.strip() for factor in run.split("*")) for run in axis.split("+")]


def check_groups(groups: Groups, outline: Params) -> None:
    """Raise ValueError where a table does not fit the tensors of a network."""
    for tensor, axes in groups.axes.items():
        if tensor not in outline:
            raise ValueError(f"the table has a tensor {tensor!r} that the network lacks")
        lengths = tuple(groups.length(runs) for runs in groups.runs(tensor))
        if lengths != tuple(outline[tensor].shape):
            raise ValueError(
                f"tensor {tensor!r} has shape {tuple(outline[tensor].shape)}; its axes {axes} make {lengths}"
            )


def permuted(params: Params, groups: Groups, places: Places) -> dict[str, Tensor]:
    """The tensors of one model with their places permuted; those that stay are the same objects."""
    found = dict(params)
    for name in groups.axes.keys() & params.keys():
        for axis, runs in enumerate(groups.runs(name)):
            found[name] = along(found[name], axis, runs, groups, places)
    return found


def along(value: Tensor, axis: int, runs: Sequence[Run], groups: Groups, places: Places) -> Tensor:
    """A tensor with one axis permuted."""
    if not any(factor in places for run in runs for factor in run):
        return value
    return value.index_select(axis, _index(runs, groups, places).to(value.device))


def _index(runs: Sequence[Run], groups: Groups, places: Places) -> Tensor:
    """For each place of an axis, the place it comes from."""
    found, start = [], 0
    for run in runs:
        shape = [groups.size(factor) for factor in run]
        total = torch.zeros(shape, dtype=torch.int64)
        for axis, factor in enumerate(run):
            rows = places[factor] if factor in places else torch.arange(shape[axis])
            spread = [1] * len(run)
            spread[axis] = shape[axis]
            if rows.ndim == 2:
                spread[run.index(groups.within[factor])] = rows.shape[0]
            total = total * shape[axis] + rows.reshape(spread)
        found.append(total.flatten() + start)
        start += total.numel()
    return torch.cat(found)


@dataclass(frozen=True)
class Spot:
    """Where a group stands in a tensor: a run of an axis that starts at a place."""

    axis: int
    start: int
    run: Run
    alone: bool
    """Whether the run is the whole axis."""


def spots(runs: Sequence[Sequence[Run]], group: str, groups: Groups) -> Iterator[Spot]:
    """Everywhere that a group stands in a tensor with these runs along its axes."""
    for axis, several in enumerate(runs):
        start = 0
        for run in several:
            if group in run:
                yield Spot(axis, start, run, len(several) == 1)
            start += groups.length([run])


def laid_out(value: Tensor, wanted: Mapping[str, Spot], groups: Groups) -> Tensor:
    """`[*sizes, rest]`: the factors `wanted`, each where it stands, come first and all else behind them.

    A number in a run that is a whole axis may stand for another batch than this one: it takes what is there.
    """
    at: list[int] = []
    for spot in sorted(set(wanted.values()), key=lambda spot: -spot.axis):
        sizes = [groups.size(factor) for factor in spot.run]
        total = math.prod(sizes)
        if spot.alone and total != value.shape[spot.axis]:
            sizes[[factor.isdecimal() for factor in spot.run].index(True)] = -1
            total = value.shape[spot.axis]
        value = torch.unflatten(value.narrow(spot.axis, spot.start, total), spot.axis, sizes)
        # Axes behind this one have moved.
        at = [place + len(sizes) - 1 for place in at]
        at = [*(spot.axis + spot.run.index(factor) for factor, own in wanted.items() if own == spot), *at]
    order = [factor for spot in sorted(set(wanted.values()), key=lambda spot: spot.axis)
             for factor, own in wanted.items() if own == spot]  # fmt: skip
    value = value.movedim([at[order.index(factor)] for factor in wanted], list(range(len(wanted))))
    return value.flatten(len(wanted)) if value.ndim > len(wanted) else value.unsqueeze(-1)
