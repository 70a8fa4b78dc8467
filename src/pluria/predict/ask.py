"""Members asked stage by stage, each on the examples that are still in play, packed into full batches.

The rule comes as an argument: `steps(outputs)` gives (stage, members it asks, rows that reach it) while `outputs`
`[K, N, C]` fill in, as a `pluria.pool.Cascade` does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from pluria.core.ensemble import Ensemble
from pluria.predict.batches import Batches, first, refuse_unstable
from pluria.predict.loop import View, identity, runner
from pluria.predict.pieces import changed, joined, kind, rows


@dataclass(frozen=True, eq=False)
class Part:
    """Members of one network, and the views that they see."""

    model: nn.Module
    ensemble: Ensemble
    views: Sequence[View] = (identity,)


Step = tuple[int, tuple[int, ...], Tensor]
"""A stage, the members it asks, and the rows that reach it."""


class Rule(Protocol):
    """Who is asked about what; members are numbered through all parts, 0..K-1."""

    @property
    def members(self) -> int: ...

    @property
    def classes(self) -> int: ...

    def steps(
        self, outputs: Tensor, weights: Tensor | None = None
    ) -> Iterator[tuple[int, tuple[int, ...], Tensor]]: ...


@dataclass(frozen=True, eq=False)
class Asked:
    """Outputs `[K, N, C]`, NaN where a member was not asked; who was, bool `[K, N]`; targets `[N]` or None."""

    outputs: Tensor
    asked: Tensor
    targets: Tensor | None


def ask(
    parts: Sequence[Part],
    rule: Rule,
    batches: Batches,
    *,
    weights: Tensor | None = None,
    inputs: Callable[[Any], tuple[Any, Tensor | None]] = first,
    told: Callable[[int, int], None] = lambda stage, rows: None,
    **options: Any,
) -> Asked:
    """Ask the members of all parts, one network after the other, as the rule says.

    batches   re-iterable and unshuffled, gone through once to be counted and once for each member; of one size
    weights   mixing weights `[K]`, which the rule is told; None: equal
    told      is told (stage, rows that reach it) before each stage
    options   of `runner`: output, class_axis, device, dtype, channels_last

    Raises ValueError where the rule is for another number of members or classes, where there is no example, and where
    the tensors of a batch do not share their first axis; and what `predict` raises.
    """
    refuse_unstable(batches)
    runs = [runner(part.model, part.ensemble, views=part.views, inputs=_alone, **options) for part in parts]
    places = [(run, number) for run, part in zip(runs, parts, strict=True) for number in part.ensemble.members]
    if len(places) != rule.members:
        raise ValueError(f"the rule is for {rule.members} members, and here are {len(places)}; fit it for these")
    sizes, targets = _counted(batches, inputs)
    if not sum(sizes):
        raise ValueError("no predictions: there was no batch, or none with an example")
    outputs = torch.full((rule.members, sum(sizes), rule.classes), torch.nan)
    asked = torch.zeros(outputs.shape[:2], dtype=torch.bool)
    for stage, members, reached in rule.steps(outputs, weights):
        told(stage, len(reached))
        packed = _Packed(batches, inputs, reached, max(sizes))
        for member in members:
            run, number = places[member]
            found = torch.cat([block.outputs[0] for block in run(packed, [number])])
            if found.shape[1:] != outputs.shape[2:]:
                raise ValueError(
                    f"the rule is for outputs [N, {rule.classes}], and member {member} gives {[*found.shape]}"
                )
            outputs[member, reached] = found
            asked[member, reached] = True
    return Asked(outputs, asked, targets)


def _alone(batch: Any) -> tuple[Any, None]:
    return batch, None


def _counted(batches: Batches, inputs: Callable[[Any], tuple[Any, Tensor | None]]) -> tuple[list[int], Tensor | None]:
    """How many examples each batch has, and all targets."""
    sizes, targets = [], []
    for batch in batches:
        x, y = inputs(batch)
        sizes.append(_length(x))
        targets += [] if y is None else [torch.as_tensor(y).cpu()]
    return sizes, torch.cat(targets) if targets else None


@dataclass(frozen=True, eq=False)
class _Packed:
    """Inputs of some rows in batches of a size. Examples of another kind than those before begin a batch."""

    batches: Batches
    inputs: Callable[[Any], tuple[Any, Tensor | None]]
    rows: Tensor
    size: int

    def __iter__(self) -> Iterator[Any]:
        held: list[Any] = []
        for x in self._chosen():
            if held and kind(x) != kind(held[0]):
                yield joined(held)
                held = []
            held.append(x)
            if sum(map(_length, held)) >= self.size:
                full = joined(held)
                yield changed(full, lambda tensor: tensor[: self.size])
                held = [changed(full, lambda tensor: tensor[self.size :])] if _length(full) > self.size else []
        if held:
            yield joined(held)

    def _chosen(self) -> Iterator[Any]:
        """What each batch has of the rows."""
        start = 0
        for batch in self.batches:
            x = self.inputs(batch)[0]
            stop = start + _length(x)
            own = self.rows[(self.rows >= start) & (self.rows < stop)] - start
            if len(own):
                yield x if len(own) == stop - start else _taken(x, own)
            start = stop


def _taken(x: Any, own: Tensor) -> Any:
    return changed(x, lambda tensor: tensor[own.to(tensor.device)])


def _length(x: Any) -> int:
    if (count := rows(x)) is None:
        raise ValueError(
            "the examples of a batch cannot be counted: its inputs are tensors that share their first axis"
        )
    return count
