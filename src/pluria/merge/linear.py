"""Weighted mean of the members, tensor by tensor.

    merged = sum_k w_k theta_k

Source: Izmailov et al., "Averaging Weights Leads to Wider Optima and Better Generalization", UAI 2018; Wortsman et al.,
"Model soups", ICML 2022.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from pluria.merge.rule import Piece, Rule


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
    weights, total = piece.weights.tolist(), piece.values[0]
    if len(set(weights)) == 1:  # members that cancel then do so exactly
        for values in piece.values[1:]:
            total.add_(values)
        return total.mul_(weights[0])
    total.mul_(weights[0])
    for values, weight in zip(piece.values[1:], weights[1:], strict=True):
        # Product, then sum: a fused step rounds otherwise at the end of a run than inside it.
        total.add_(values.mul_(weight))
    return total
