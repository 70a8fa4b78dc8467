"""Weighted mean of the members, tensor by tensor.

    merged = sum_k w_k theta_k

Source: Izmailov et al., "Averaging Weights Leads to Wider Optima and Better Generalization", UAI 2018; Wortsman et al.,
"Model soups", ICML 2022.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from pluria.core.reduce import weighted_sum
from pluria.core.weights import common
from pluria.merge.rule import Piece, Rule
from pluria.numbers import members


def linear() -> Rule:
    """The rule of the weighted mean, sum_k w_k theta_k, with an ensemble's own weights.

    >>> import torch
    >>> from pluria.core.ensemble import stack
    >>> from pluria.merge.leafwise import leafwise
    >>> leafwise(stack([{"w": torch.zeros(2)}, {"w": torch.ones(2)}]), linear())
    {'w': tensor([0.5000, 0.5000])}
    """
    return Rule(_mean)


def _mean(piece: Piece, _: Any) -> Tensor:
    shares, factor = common(piece.weights)
    rows = piece.stored if members.serves(piece.stored, *members.SIXTEEN) else piece.values
    return weighted_sum(rows, shares, dtype=piece.arithmetic).mul_(factor)
