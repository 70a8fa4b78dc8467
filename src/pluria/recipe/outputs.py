"""Outputs of an arm's members on one part of the rows, dense ones place by place."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from pluria.pool import fit_temperature, mean_logit, mean_probability
from pluria.score import flatten, nll
from pluria.zoo.dataset import IGNORED

Pool = Literal["mean_probability", "mean_logit"]
POOLS: Mapping[Pool, Callable[..., Tensor]] = {"mean_probability": mean_probability, "mean_logit": mean_logit}
"""Ways to make one prediction of several before the temperature; the first is also what stands before it."""


@dataclass(frozen=True)
class Outputs:
    """Logits `[K, N, ..., C]` and targets `[N, ...]` of one part of the rows, flattened to `[K, M, C]` and `[M]`.

    `example` `[M]` says which example a place belongs to; None where every example is one place.
    """

    logits: Tensor
    y: Tensor
    weights: Tensor | None = None
    example: Tensor | None = None

    @staticmethod
    def of(logits: Tensor, y: Tensor, weights: Tensor | None = None) -> Outputs:
        """Ignored places are dropped."""
        owner = torch.arange(len(y)).view(-1, *[1] * (y.ndim - 1)).expand(y.shape)[y != IGNORED]
        return Outputs(*flatten(logits, y), weights, owner if y.ndim > 1 else None)

    def by_example(self, values: Tensor) -> Tensor:
        """Values of places `[M]` as one for each example, with the same mean: places of one are not independent."""
        if self.example is None:
            return values
        counts = torch.bincount(self.example)
        sums = torch.bincount(self.example, weights=values.to(torch.float64))[counts > 0]
        return sums * len(sums) / len(values)

    def pooled(self, members: int | None = None, pool: Pool = "mean_probability") -> Tensor:
        """Log-probabilities of the first members together, `[M, C]`, float64."""
        weights = None if self.weights is None else self.weights[:members]
        return POOLS[pool](self.logits[:members].to(torch.float64), weights)


def calibrated(rows: Outputs) -> dict[Pool, float]:
    """NLL of the calibration rows after temperature, under each pool."""
    found: dict[Pool, float] = {}
    for pool in POOLS:
        pooled = rows.pooled(pool=pool)
        found[pool] = float(nll(fit_temperature(pooled, rows.y)(pooled), rows.y).mean())
    return found


def best_pool(several: Sequence[Mapping[Pool, float]]) -> Pool:
    """The pool of least loss over the seeds; a single model has the same loss under all of them, to rounding."""
    losses = {pool: sum(one[pool] for one in several) for pool in POOLS}
    best = min(POOLS, key=lambda pool: losses[pool])
    return best if losses[best] < losses["mean_probability"] * (1 - 1e-9) else "mean_probability"
