"""Model stock: a tensor's mean is drawn towards the base, the more the members' task vectors differ in direction.

    c = mean over pairs of cos(tau_i, tau_j)    t = K c / (1 + (K - 1) c)    merged = t mean theta_k + (1 - t) theta_0

A ratio for each tensor. With a negative c the published t lies below zero, and at c = -1/(K - 1) nowhere: `clamp` makes
it zero there, so that the base is kept. Source: Jang, Yun and Han, "Model Stock: all we need is just a few fine-tuned
models", ECCV 2024.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from pluria.core.reduce import weighted_sum
from pluria.merge.rule import Pass, Piece, Rule


def model_stock(*, clamp: bool = True) -> Rule:
    """The rule of model stock; it needs a base. `clamp=False` extrapolates where task vectors oppose each other.

    >>> from pluria.core.ensemble import stack
    >>> from pluria.merge.leafwise import leafwise
    >>> two = stack([{"w": torch.tensor([1.0, 0.0])}, {"w": torch.tensor([0.6, 0.8])}])  # cos 3/5, so t = 3/4
    >>> leafwise(two, model_stock(), base={"w": torch.zeros(2)})
    {'w': tensor([0.6000, 0.3000])}
    """

    def combine(piece: Piece, ratio: float) -> Tensor:
        if math.isinf(ratio):
            raise ValueError(
                f"tensor {piece.name!r}: task vectors cancel each other, and the published ratio of model stock is "
                "infinite there. Merge by `pluria merge model_stock`, or `clamp=True`, which keeps the base there"
            )
        return piece.origin + ratio * weighted_sum(piece.deltas, piece.weights)

    return Rule(combine, (Pass(_gram, lambda gram, _: _ratio(gram, clamp)),), needs_base=True, between=clamp)


def _gram(piece: Piece, _: Any) -> Tensor:
    """Inner products of the task vectors with weight in a piece, float64 `[K, K]`."""
    deltas = piece.deltas[piece.weights > 0].to(torch.float64)
    return torch.stack([(deltas * one).sum(1) for one in deltas])


def _ratio(gram: Tensor, clamp: bool) -> float:
    """t for inner products `[K, K]`; a task vector of zero has the cosine zero with every other."""
    count, lengths = len(gram), gram.diagonal().sqrt()
    if count == 1:
        return 1.0
    cosines = (gram / (lengths[:, None] * lengths)).nan_to_num(0.0)
    cosine = float((cosines.sum() - cosines.diagonal().sum()) / (count * (count - 1)))
    if clamp and cosine <= 0:
        return 0.0
    # Rounding of equal task vectors must not draw them off.
    cosine = min(cosine, 1.0)
    below = 1 + (count - 1) * cosine
    return count * cosine / below if abs(below) > 1e-12 else math.inf
