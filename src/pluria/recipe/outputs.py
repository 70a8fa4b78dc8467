"""Outputs of an arm's members on one part of the rows, dense ones place by place."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from pluria.pool import mean_probability
from pluria.score import flatten
from pluria.zoo.dataset import IGNORED


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

    def first(self, members: int) -> Outputs:
        """The same rows with the first members alone."""
        weights = None if self.weights is None else self.weights[:members]
        return replace(self, logits=self.logits[:members], weights=weights)

    def pooled(self) -> Tensor:
        """Log of the members' mean probability `[M, C]`, float64: what stands before any temperature."""
        return mean_probability(self.logits.to(torch.float64), self.weights)
