"""A network of a run with what is known of it: unlabelled inputs, their moments, the work of a forward, its members."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from pluria.core.ensemble import Ensemble
from pluria.core.model import working_copy
from pluria.predict import first
from pluria.predict.batches import call
from pluria.sample.moments import Moments, moments

ROOM = 2**31
"""Bytes of drawn members that a network keeps."""

Made = tuple[nn.Module, Ensemble]


class Drawn:
    """Members that were drawn, by what they depend on, so that error feedback and refresh are done once in a run.

    The oldest go first where there is no more room; an ensemble larger than the room is not kept.
    """

    def __init__(self, room: int = ROOM) -> None:
        self.room = room
        self._held: dict[Hashable, tuple[Sequence[int], Made, int]] = {}

    def find(self, name: Hashable, positions: Sequence[int]) -> Made | None:
        """The members at these positions, where all of them are kept."""
        if name not in self._held:
            return None
        kept, (model, ensemble), _ = self._held[name]
        if not set(positions) <= set(kept):
            return None
        return model, ensemble.take([kept.index(position) for position in positions])

    def keep(self, name: Hashable, positions: Sequence[int], made: Made) -> None:
        """Keep members that stand at these positions, in the place of others of that name."""
        size = made[1].bits().file // 8
        self._held.pop(name, None)
        while self._held and size + sum(held for *_, held in self._held.values()) > self.room:
            self._held.pop(next(iter(self._held)))
        if size <= self.room:
            self._held[name] = tuple(positions), made, size


@dataclass(frozen=True, eq=False)
class Source:
    """The network, batches of inputs whose labels are not used, and the members drawn so far.

    collected   members that the network brings along: of a file, or of a training
    passes      backward passes over batches that they took
    """

    model: nn.Module
    unlabelled: list[Any] = field(default_factory=list)
    drawn: Drawn = field(default_factory=Drawn)
    collected: Ensemble | None = None
    passes: int = 0

    @cached_property
    def moments(self) -> Moments:
        """Second moments of every layer's inputs, measured once."""
        return moments(self.model, self.unlabelled, forward=call)

    @cached_property
    def flops(self) -> int:
        """Floating point operations of one forward on one example, as torch counts them (a multiply-add is two)."""
        if not self.unlabelled:
            return 0
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            call(working_copy(self.model, dtype=torch.float32), self.unlabelled[0])
        return round(float(counter.get_total_flops()) / _examples(self.unlabelled[0]))


Sources = Mapping[str, Source]


def unlabelled(rows: Any, count: int, batch: int) -> list[Any]:
    """Inputs of the first rows; labels are dropped.

    A batch of one row has no variance, so one that is left over is left out.
    """
    batches = [first(one) for one in rows.take(slice(0, count)).batches(max(2, batch))]
    left_over = len(batches) > 1 and batches[-1][1] is not None and len(batches[-1][1]) == 1
    return [inputs for inputs, _ in (batches[:-1] if left_over else batches)]


def _examples(batch: Any) -> int:
    if isinstance(batch, torch.Tensor):
        return len(batch)
    parts = batch.values() if isinstance(batch, Mapping) else batch
    return next(len(part) for part in parts if isinstance(part, torch.Tensor))
