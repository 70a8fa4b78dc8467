"""Sparse soup: the mean of members that were pruned alike, which is as sparse as they are.

    merged = sum_k w_k theta_k        where all theta_k have the same zeros

The mean of members that were pruned apart has the zeros that all of them share, and few are left; so it is refused.
Retrain copies of one pruned network instead, average them, and prune the mean again. Source: Zimmer, Spiegel and
Pokutta, "Sparse model soups", ICLR 2024.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from pluria.core.reduce import weighted_sum
from pluria.merge.rule import Pass, Piece, Rule


def sparse_soup(*, excess: float = 0.01) -> Rule:
    """The rule of the mean, refused (ValueError) where it is denser than its densest member, tensor by tensor.

    excess   the share by which it may be denser, since a weight may become zero in one member by itself

    >>> from pluria.core.ensemble import stack
    >>> from pluria.merge.leafwise import leafwise
    >>> leafwise(stack([{"w": torch.tensor([1.0, 0.0])}, {"w": torch.tensor([3.0, 0.0])}]), sparse_soup())
    {'w': tensor([2., 0.])}
    """

    def combine(piece: Piece, counts: Tensor) -> Tensor:
        *own, mean = counts.tolist()
        if mean > max(own) * (1 + excess):
            count = piece.shape.numel()
            raise ValueError(
                f"tensor {piece.name!r}: the members keep {max(own) / count:.1%} of their weights and their mean "
                f"{mean / count:.1%}, so they were not pruned alike. Retrain copies of one pruned network"
            )
        return weighted_sum(piece.values, piece.weights)

    return Rule(combine, (Pass(_counts, lambda total, _: total),))


def _counts(piece: Piece, _: Any) -> Tensor:
    """How many elements are not zero: in each member with weight, and in any of them; int64 `[K + 1]`."""
    kept = (piece.values != 0) & (piece.weights > 0)[:, None]
    return torch.cat([kept.sum(1), kept.any(0).sum()[None]])
