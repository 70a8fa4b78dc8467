"""A network of a run with what can be known of it: unlabelled inputs, their moments, the work of one forward."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from pluria.core.model import working_copy
from pluria.predict import first
from pluria.predict.batches import call
from pluria.sample.moments import Moments, moments


@dataclass(frozen=True, eq=False)
class Source:
    """The network, and batches of inputs whose labels are not used."""

    model: nn.Module
    unlabelled: list[Any] = field(default_factory=list)

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
