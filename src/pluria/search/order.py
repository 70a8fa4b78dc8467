"""Calibration rows in two halves, what one fits the other judges, each in an order whose every beginning serves.

    classes are dealt out to the halves in turn; in each half row j of a class of n stands at (j + 1/2) / n of the way

So the first rows of a half hold the classes in their shares, however the file is sorted.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

FEWEST = 40
"""Rows of each half that a first look takes at least, where there are as many."""


@dataclass(frozen=True, eq=False)
class Order:
    """Rows of both halves, and how many of each a look of each size takes."""

    one: Tensor
    other: Tensor
    stops: tuple[tuple[int, int], ...]

    def chunk(self, look: int) -> Tensor:
        """Rows that a look adds to the one before: those of the first half, then those of the second."""
        low = self.stops[look - 1] if look else (0, 0)
        high = self.stops[look]
        return torch.cat([self.one[low[0] : high[0]], self.other[low[1] : high[1]]])

    def chunks(self, look: int) -> list[int]:
        """The looks up to this one that add rows; of few rows the first takes all."""
        return [i for i in range(look + 1) if len(self.chunk(i))]

    def halves(self, look: int) -> Tensor:
        """Which of the rows of all looks so far are of the first half, bool, in the order of their chunks."""
        found = []
        for i, high in enumerate(self.stops[: look + 1]):
            low = self.stops[i - 1] if i else (0, 0)
            found.append(torch.arange(high[0] - low[0] + high[1] - low[1]) < high[0] - low[0])
        return torch.cat(found)

    def restored(self, outputs: Tensor) -> Tensor:
        """Outputs `[K, N, ...]` of all chunks in the order of the file."""
        rows = torch.cat([self.chunk(look) for look in range(len(self.stops))])
        return outputs[:, rows.argsort()]


def order_of(targets: Tensor, shares: Sequence[float]) -> Order:
    """The order of rows with `targets` `[N]` or `[N, ...]`, for looks at these rising shares of each half."""
    by_class = targets.argsort(stable=True) if targets.ndim == 1 else torch.arange(len(targets))
    halves = [_spread(by_class[start::2], targets) for start in (0, 1)]
    stops = [tuple(min(len(half), max(FEWEST, math.ceil(share * len(half)))) for half in halves) for share in shares]
    return Order(halves[0], halves[1], tuple((one, two) for one, two in stops))


def _spread(rows: Tensor, targets: Tensor) -> Tensor:
    """Rows in an order in which every class is spread evenly; those of dense targets as they are."""
    if targets.ndim > 1:
        return rows
    y = targets[rows]
    place = torch.empty(len(rows), dtype=torch.float64)
    for name in sorted(set(y.tolist())):
        own = (y == name).nonzero()[:, 0]
        place[own] = (torch.arange(len(own), dtype=torch.float64) + 0.5) / len(own)
    return rows[place.argsort(stable=True)]
