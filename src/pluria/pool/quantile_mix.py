"""Mixtures of members' quantiles by softmax weights, while they are fitted and afterwards: shapes and sums.

Logits come from a network of the row's features: pairs of a matrix `[in, out]` and a bias `[out]`, ELU between them. A
global mixture is the network without features. Cells that are missing have no weight; the others are renormalised.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import elu

Kind = Literal["coarse", "medium", "fine"]
Layers = tuple[tuple[Tensor, Tensor], ...]

# Logits of other levels where fine weights start: together they have a tenth of the weight with twenty levels.
_ELSEWHERE = -5.0
LOGITS: Mapping[Kind, Callable[[int], int]] = {
    "coarse": lambda size: 1,
    "medium": lambda size: size,
    "fine": lambda size: size**2,
}
"""How many weights each member has, for so many levels."""

_SUMS = {"coarse": "nk,knq->nq", "medium": "nkq,knq->nq", "fine": "nokq,knq->no"}


@dataclass(frozen=True, eq=False)
class Mix:
    """A mixture of `members` members at `size` levels."""

    kind: Kind
    members: int
    size: int
    layers: Layers

    @property
    def inputs(self) -> int:
        """How many features a row has."""
        return self.layers[0][0].shape[0]

    def shares(self, features: Tensor) -> Tensor:
        """Weights `[rows, K]`, `[rows, K, Q]` or `[rows, Q, K, Q]` of features `[rows, D]`."""
        logits = self._logits(features)
        over = {"coarse": (1,), "medium": (1,), "fine": (2, 3)}[self.kind]
        # Only ratios count; without the largest, logits of any size stay finite.
        masses = (logits - logits.amax(over, keepdim=True)).exp()
        return masses / masses.sum(over, keepdim=True)

    def pool(self, features: Tensor, values: Tensor, there: Tensor) -> Tensor:
        """Weighted means `[N, Q]` over the cells that are there; NaN where there is none."""
        shares, sums = self.shares(features), _SUMS[self.kind]
        if len(shares) == 1:  # one table for all rows
            shares, sums = shares[0], sums[1:]
        total, mass = torch.einsum(sums, shares, values), torch.einsum(sums, shares, there)
        # Dividing by a mass of zero would send NaN back into the fit.
        return torch.where(mass > 0, total / torch.where(mass > 0, mass, 1.0), torch.nan)

    def _logits(self, features: Tensor) -> Tensor:
        hidden = features
        for number, (matrix, bias) in enumerate(self.layers):
            hidden = (hidden if number == 0 else elu(hidden)) @ matrix + bias
        if self.kind == "coarse":
            return hidden
        if self.kind == "medium":
            return hidden.reshape(-1, self.members, self.size)
        away = 1 - torch.eye(self.size, dtype=hidden.dtype, device=hidden.device)
        return hidden.reshape(-1, self.size, self.members, self.size) + _ELSEWHERE * away[:, None, :]


def begin(kind: Kind, members: int, size: int, inputs: int, hidden: Sequence[int], draws: torch.Generator) -> Mix:
    """The mixture before the fit: equal weights, hidden layers drawn, the last layer zero."""
    outputs = members * LOGITS[kind](size)
    shapes = list(pairwise([inputs, *hidden, outputs]))
    drawn = [torch.randn(shape, generator=draws, dtype=torch.float64) / max(1, shape[0]) ** 0.5 for shape in shapes]
    drawn[-1] = torch.zeros_like(drawn[-1])
    return Mix(kind, members, size, tuple((m, torch.zeros(m.shape[1], dtype=torch.float64)) for m in drawn))


def cells(outputs: Tensor) -> tuple[Tensor, Tensor]:
    """Members' quantiles `[K, N, ..., Q]` as values `[K, rows, Q]`, zero where missing, and a mask of 1 and 0."""
    flat = outputs.reshape(len(outputs), -1, outputs.shape[-1])
    there = ~flat.isnan()
    return flat.to(torch.float64).masked_fill(~there, 0.0), there.to(torch.float64)


def feature_rows(features: Tensor | None, like: Tensor, rows: int | None, wanted: int | None) -> Tensor:
    """Features `[N, ..., D]` as float64 `[rows, D]`; one row without any where there are none."""
    if features is None:
        flat = torch.zeros(1, 0, dtype=torch.float64, device=like.device)
    else:
        flat = features.flatten(0, -2).to(torch.float64) if features.ndim > 1 else features[:, None]
    fits = features is None or (features.ndim > 1 and rows in (None, len(flat)))
    if not fits or wanted not in (None, flat.shape[1]) or not bool(torch.isfinite(flat).all()):
        given, width = None if features is None else list(features.shape), "D" if wanted is None else wanted
        raise ValueError(f"features must be finite and [N, {width}] for these rows, not {given}")
    return flat
