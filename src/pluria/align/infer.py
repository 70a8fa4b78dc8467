"""Groups of axes that are permuted together, inferred by following a network through one batch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from pluria.align.atoms import Atom, Axis, length, pin, resolved
from pluria.align.follow import Followed, follow
from pluria.align.groups import Groups, Run
from pluria.core.calling import Forward, call, moved, place
from pluria.core.model import tensors, ties, working_copy


@dataclass(frozen=True)
class Traced:
    """The table, and what layers read: the number of the reading operation, and the runs of each axis."""

    groups: Groups
    reads: tuple[tuple[int, tuple[list[Run], ...]], ...]


def infer_groups(model: nn.Module, batch: Any, *, forward: Forward = call) -> Groups:
    """Which axes of a model's tensors may be permuted together without a change of the function it computes.

    batch      what the model is called with once; a single example will do
    forward    how it is called

    The model is run and every operation followed: layers, residual streams, channels that are flattened or
    concatenated, attention's heads and the values inside each. What an operation without a rule touches stays in place.

    >>> import torch
    >>> net = torch.nn.Sequential(torch.nn.Linear(4, 5), torch.nn.ReLU(), torch.nn.Linear(5, 3))
    >>> dict(infer_groups(net, torch.zeros(1, 4)).axes)
    {'0.weight': ('0.out', '4'), '0.bias': ('0.out',), '2.weight': ('3', '0.out')}
    """
    return traced(model, batch, forward).groups


def traced(model: nn.Module, batch: Any, forward: Forward) -> Traced:
    """The table and what layers read."""
    twin = working_copy(model)
    followed = follow(twin, moved(batch, place(twin), None), forward)
    own, first = tensors(twin), ties(model)
    axes = {name: followed.of(own[first[name]]) for name in own}
    _settle([axis for several in axes.values() for axis in several])
    names = _names(axes)
    within = _within(followed, axes, names)
    texts = {name: tuple(_text(axis, names) for axis in several) for name, several in axes.items()}
    kept = {name: several for name, several in texts.items() if any(map(_moves, several))}
    sizes = {name: atom.size for atom, name in names.items()}
    reads = ((number, tuple(_runs(axis, names) for axis in several)) for number, several in followed.reads)
    return Traced(Groups(kept, sizes, within), tuple(r for r in reads if any(map(_moves, map(_join, r[1])))))


def _settle(axes: Sequence[Axis]) -> None:
    """Pin what no sum of products says, until nothing changes."""
    for axis in axes:
        roots = resolved(axis)
        inner = [atom for place, atom in enumerate(roots) if place and atom.parts and not atom.pinned]
        pin(inner)
        for atom in roots:
            if not atom.pinned:
                _settle([(part,) for part in atom.parts])


def _names(axes: Mapping[str, Sequence[Axis]]) -> dict[Atom, str]:
    """A name for each atom that may be permuted, after the first module that has it."""
    names: dict[Atom, str] = {}
    for tensor, several in axes.items():
        for atom in _leaves(several):
            if atom not in names and not atom.pinned:
                base = f"{tensor.rpartition('.')[0] or tensor}.out"
                count = sum(name.startswith(base) for name in names.values())
                names[atom] = f"{base}{count + 1}" if count else base
    return names


def _within(followed: Followed, axes: Mapping[str, Sequence[Axis]], names: Mapping[Atom, str]) -> dict[str, str]:
    """Groups that always stand inside another one, and may be permuted differently in each of its places."""
    company: dict[Atom, set[Atom]] = {}
    for several in followed.axes.values():
        leaves = set(_leaves(several)) & names.keys()
        for atom in leaves:
            company[atom] = company[atom] & leaves if atom in company else leaves - {atom}
    runs = [run for several in axes.values() for axis in several for run in _products(axis)]
    found: dict[str, str] = {}
    for atom, name in names.items():
        own = [run for run in runs if atom in run]
        parents = [p for p in names if p in company[atom] and all(p in run[: run.index(atom)] for run in own)]
        parents = [p for p in parents if names[p] not in found]
        if parents and name not in found.values():
            found[name] = names[parents[0]]
    return found


def _leaves(axes: Sequence[Axis]) -> Iterator[Atom]:
    for axis in axes:
        for atom in resolved(axis):
            if atom.parts and not atom.pinned:
                yield from _leaves([(part,) for part in atom.parts])
            else:
                yield atom


def _products(axis: Axis) -> Iterator[tuple[Atom, ...]]:
    """The runs of an axis; a sum stands outermost once all is settled."""
    roots = resolved(axis)
    if roots and roots[0].parts and not roots[0].pinned:
        for part in roots[0].parts:
            for run in _products((part,)):
                yield (*run, *roots[1:])
    else:
        yield tuple(roots)


def _runs(axis: Axis, names: Mapping[Atom, str]) -> list[Run]:
    runs = [tuple(names.get(atom, str(atom.size)) for atom in run) or ("1",) for run in _products(axis)]
    return runs if any(factor in names.values() for run in runs for factor in run) else [(str(length(axis)),)]


def _join(runs: Sequence[Run]) -> str:
    return " + ".join("*".join(run) for run in runs)


def _text(axis: Axis, names: Mapping[Atom, str]) -> str:
    return _join(_runs(axis, names))


def _moves(axis: str) -> bool:
    return not axis.isdecimal()
