"""What a merge that is no rule works with: the models in memory, and where it runs them, the network and rows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from pluria.align import has_batch_norm, refresh, repair
from pluria.core.calling import call
from pluria.core.ensemble import Ensemble, single
from pluria.core.params import Params
from pluria.merge.objective import objective_of
from pluria.predict import gather, logits, predict
from pluria.zoo.dataset import IGNORED, Batches

Objective = Callable[[Params], tuple[float, Params]]


@dataclass(frozen=True, eq=False)
class Bench:
    """Models in memory.

    rows       batches of inputs and targets: one set for all models, or one for each
    seed       of methods that draw
    repaired   whether what is merged is repaired before it is judged or written: batch-norm statistics refreshed, or
               layers that vary too little made larger
    """

    ensemble: Ensemble
    base: Params | None = None
    network: nn.Module | None = None
    rows: tuple[Batches, ...] = ()
    seed: int = 0
    repaired: bool = False

    @property
    def model(self) -> nn.Module:
        """The network; ValueError where there is none, or no rows to run it on."""
        if self.network is None or not self.rows:
            raise ValueError("this merge runs the network: give the network (--model) and rows (--data)")
        return self.network

    @property
    def origin(self) -> Params:
        """The base; ValueError where there is none."""
        if self.base is None:
            raise ValueError("this merge starts from a base model; give one as `base`")
        return self.base

    @cached_property
    def batches(self) -> list[tuple[Tensor, Tensor]]:
        """All rows, of all sets."""
        _ = self.model
        return [batch for part in self.rows for batch in part]

    @cached_property
    def labelled(self) -> int:
        """How many rows have a target; ValueError where none has."""
        count = sum(int((y != IGNORED).sum()) for _, y in self.batches)
        if not count:
            raise ValueError(f"this merge reads targets, and that of every row is {IGNORED}, unknown")
        return count

    def inputs(self, member: int | None = None) -> list[Tensor]:
        """Inputs of the set of the member at a position, or of all sets; one set is everybody's."""
        if member is None or len(self.rows) == 1:
            return [x for x, _ in self.batches]
        return [x for x, _ in self.rows[member]]

    def outputs(self, ensemble: Ensemble) -> tuple[Tensor, Tensor]:
        """Logits `[K, N, C]` and targets `[N]` of all rows."""
        outputs, targets = gather(predict(self.model, ensemble, self.batches))
        if targets is None:
            raise ValueError("this merge reads targets, and the rows have none")
        return outputs, targets

    def loss(self, params: Params) -> float:
        """The mean negative log-likelihood of all rows."""
        _ = self.labelled
        outputs, targets = self.outputs(single(self.mended(params)))
        return float(cross_entropy(outputs[0], targets))

    @cached_property
    def objective(self) -> Objective:
        """That loss with its gradient, of params as they are."""
        count = self.labelled

        def loss(network: nn.Module) -> Tensor:
            parts = [cross_entropy(logits(call(network, x)), y, reduction="sum") for x, y in self.batches]
            return torch.stack(parts).sum() / count

        return objective_of(self.model, loss)

    def mended(self, params: Params) -> Params:
        """Params repaired, where that was asked for."""
        if not self.repaired:
            return params
        if has_batch_norm(self.model):
            first = self.ensemble.params(self.ensemble.members[0])
            return refresh(self.model, single(params), self.inputs(), reference=first).params(0)
        return repair(self.model, params, self.ensemble, self.inputs())


def groups_of(name: str) -> Any:
    """What shares its coefficients, by a word: each "tensor", all of a "layer", or the whole "model"."""
    found = {"tensor": None, "layer": lambda tensor: tensor.rpartition(".")[0], "model": lambda tensor: 0}
    if name not in found:
        raise ValueError(f"groups are tensor, layer or model; got {name!r}")
    return found[name]


def check_rows(sets: Sequence[Any], models: int) -> None:
    """Raise ValueError unless there is one set of rows, or one for each model."""
    if len(sets) not in (0, 1, models):
        raise ValueError(f"one set of rows serves all models, or each has its own; got {len(sets)} for {models} models")
