"""Adapters added to a base that is read in pieces: the rule form of `add_adapters`.

merged = theta + sum_k w_k s_k B_k A_k        rows of the product are made where they are needed
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from pluria.core.adapter import Adapter, LowRank
from pluria.core.factored import spread
from pluria.merge.linear import linear
from pluria.merge.rule import Named, Piece, Rule, row_length


def adding(adapters: Sequence[Adapter], weights: Sequence[float] | None = None) -> Named:
    """The rule for one member, the base, to which adapters are added; `weights` as in `add_adapters`.

    >>> from pluria.core.ensemble import stack
    >>> from pluria.merge.leafwise import leafwise
    >>> one = {"w": LowRank(torch.tensor([[1.0]]), torch.tensor([[2.0, 3.0]]))}
    >>> leafwise(stack([{"w": torch.ones(1, 2)}]), adding([one, one], [1.0, -0.5]))
    {'w': tensor([[2.0000, 2.5000]])}
    """
    shares = [1.0] * len(adapters) if weights is None else [float(weight) for weight in weights]
    if not adapters or len(shares) != len(adapters):
        raise ValueError(f"give one adapter or more, and a weight for each; got {len(adapters)} and {len(shares)}")
    parts: dict[str, list[tuple[LowRank, float]]] = {}
    for adapter, share in zip(adapters, shares, strict=True):
        for name, part in adapter.items():
            parts.setdefault(name, []).append((part, share))
    return Named({name: _added(own) for name, own in parts.items()}, Rule(linear().combine, members=1))


def _added(parts: Sequence[tuple[LowRank, float]]) -> Rule:
    def combine(piece: Piece, _: Any) -> Tensor:
        start, row = piece.start, row_length(piece.shape)
        rows = slice(start // row, (start + piece.values.shape[1]) // row)
        total = piece.values[0].to(torch.float64).view(-1, *piece.shape[1:])
        for part, share in parts:
            _check(piece, part)
            product = part.scale * (part.left[rows].detach().to(torch.float64) @ part.right.detach().to(torch.float64))
            total = total + share * product.view(spread(total.shape, part.right.shape[1]))
        return total.reshape(-1)

    return Rule(combine, members=1, pieces="row")


def _check(piece: Piece, part: LowRank) -> None:
    shape, wide = (part.left.shape[0], part.right.shape[1]), piece.shape
    if len(wide) < 2 or shape[0] != wide[0] or shape[1] not in (wide[1], wide[1:].numel()):
        raise ValueError(f"tensor {piece.name!r} has shape {tuple(wide)}, and its adapter's product {shape}")
