"""Variance-corrected averaging: the mean of K members has too small a spread, and is given one back, tensor by tensor.

    merged = (mean - m) sqrt(v* / Var mean) + m        m = average element of the mean

    follow "others"         v* = sum_k w_k Var theta_k
           "self"           v* = Var of the base, one's own model
           "conservative"   v* = share Var of the base + (1 - share) of the others'

The mean of K independent networks has a K-th of their variance, too little for the activations to keep their size.
Equal members are left as they are; so is a tensor without spread. Where some tensors are to have the plain mean, give
`leafwise` a function of the name. Source: "Vanishing variance problem in fully decentralized neural-network systems",
arXiv 2404.04616.
"""

from __future__ import annotations

from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor

from pluria.core.reduce import weighted_sum
from pluria.merge.rule import Pass, Piece, Rule

Follow = Literal["others", "self", "conservative"]


def corrected_mean(*, follow: Follow = "others", share: float = 0.5) -> Rule:
    """The rule of variance-corrected averaging; following oneself needs a base, which is one's own model.

    >>> from pluria.core.ensemble import stack
    >>> from pluria.merge.leafwise import leafwise
    >>> two = stack([{"w": torch.tensor([3.0, -3.0, 0.0, 0.0])}, {"w": torch.tensor([0.0, 0.0, 3.0, -3.0])}])
    >>> leafwise(two, corrected_mean())["w"]
    tensor([ 2.1213, -2.1213,  2.1213, -2.1213])
    """
    if follow not in ("others", "self", "conservative"):
        raise ValueError(f"follow is 'others', 'self' or 'conservative'; got {follow!r}")
    if not 0 <= share <= 1:
        raise ValueError(f"share lies in [0, 1]; got {share}")
    own = {"others": 0.0, "self": 1.0, "conservative": share}[follow]

    def combine(piece: Piece, found: tuple[float, float]) -> Tensor:
        centre, factor = found
        return (weighted_sum(piece.values, piece.weights) - centre) * factor + centre

    passes = (Pass(partial(_sums, own), _averages), Pass(partial(_squares, own), _correction))
    return Rule(combine, passes, needs_base=own > 0, between=False)


def _rows(own: float, piece: Piece) -> tuple[Tensor, Tensor]:
    """The mean, the members and the base, float64 `[1 + K (+ 1), n]`, and the share of each in v*, `[K (+ 1)]`."""
    values, shares = [weighted_sum(piece.values, piece.weights), *piece.values.to(torch.float64)], piece.weights
    if own:
        values, shares = [*values, piece.origin.to(torch.float64)], torch.cat([shares * (1 - own), torch.tensor([own])])
    return torch.stack(values), shares


def _sums(own: float, piece: Piece, _: Any) -> Tensor:
    rows, _shares = _rows(own, piece)
    return torch.cat([rows.sum(1), torch.tensor([rows.shape[1]])])


def _averages(total: Tensor, _: Any) -> Tensor:
    return total[:-1] / total[-1]


def _squares(own: float, piece: Piece, averages: Tensor) -> Tensor:
    """Squared deviations of the mean and those that it is to have, float64 `[2]`."""
    rows, shares = _rows(own, piece)
    squares = (rows - averages[:, None]).square().sum(1)
    return torch.stack([squares[0], (shares * squares[1:]).sum()])


def _correction(squares: Tensor, averages: Tensor) -> tuple[float, float]:
    """The average of the mean and the factor of its deviations."""
    spread, wanted = squares.tolist()
    return float(averages[0]), (wanted / spread) ** 0.5 if spread > 0 else 1.0
