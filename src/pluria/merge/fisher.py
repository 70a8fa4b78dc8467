"""Fisher merging: each element of a member counts by how much that member's answers depend on it.

    merged = sum_k w_k l_k F_k theta_k / sum_k w_k l_k F_k        l_k = 1 / |F_k|, over the whole table, or 1

The maximum of the product of Gaussians around the members whose precisions are the diagonal Fishers F_k. Source: Matena
and Raffel, "Merging models with Fisher-weighted averaging", NeurIPS 2022.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from pluria.core.params import Params
from pluria.merge.linear import linear
from pluria.merge.rule import Named, Piece, Rule, Rules


def fisher(
    fishers: Sequence[Params], *, floor: float = 1e-6, normalise: bool = True, favour_first: bool = False
) -> Rules:
    """The rule of Fisher merging, for members in the order of their tables.

    fishers        a table for each member, of names to tensors of the params' shapes, such as `fisher_information`
    floor          the least that an element counts, before the tables' lengths are divided out
    normalise      whether each table is divided by its length
    favour_first   whether the floor is for the first member alone: where no Fisher speaks, its value stays

    Tensors that are in no table, as batch norm's statistics, become the mean; so do elements where all is zero. Raises
    ValueError for tables that hold other names, negative numbers, NaN or Inf.

    >>> from pluria.core.ensemble import stack
    >>> from pluria.merge.leafwise import leafwise
    >>> two = stack([{"w": torch.tensor([0.0, 0.0])}, {"w": torch.tensor([4.0, 4.0])}])
    >>> tables = [{"w": torch.tensor([1.0, 3.0])}, {"w": torch.tensor([3.0, 1.0])}]
    >>> leafwise(two, fisher(tables))
    {'w': tensor([3., 1.])}
    """
    _check(fishers, floor)
    scales = [1 / _length(table) if normalise else 1.0 for table in fishers]

    def rule(name: str) -> Rule:
        def combine(piece: Piece, _: Any) -> Tensor:
            total = torch.zeros(piece.values.shape[1:], dtype=torch.float64)
            mass, mean, even = total.clone(), total.clone(), piece.weights.tolist()
            for k, (table, value) in enumerate(zip(fishers, piece.values, strict=True)):
                own = _part(table[name], piece)
                own = own if favour_first and k else own.clamp(min=floor)
                share, wide = own * (even[k] * scales[k]), value.to(torch.float64)
                total, mass, mean = total + share * wide, mass + share, mean + even[k] * wide
            return torch.where(mass > 0, total / torch.where(mass > 0, mass, 1.0), mean)

        return Rule(combine, members=len(fishers))

    return Named({name: rule(name) for name in fishers[0]}, linear())


def _part(table: Tensor, piece: Piece) -> Tensor:
    """The elements of a member's table that are the piece's."""
    if table.shape != piece.shape:
        raise ValueError(
            f"tensor {piece.name!r} has shape {tuple(piece.shape)} and a Fisher of shape {tuple(table.shape)}; "
            "give the table of this network"
        )
    stop = piece.start + piece.values.shape[1]
    return table.reshape(-1)[piece.start : stop].to(torch.float64)


def _length(table: Params) -> float:
    """The length of all tensors of a table as one vector; 1 for a table of zeros."""
    return sum(float(value.to(torch.float64).square().sum()) for value in table.values()) ** 0.5 or 1.0


def _check(fishers: Sequence[Params], floor: float) -> None:
    if not fishers or not floor >= 0:
        raise ValueError(f"give a table of Fishers for each member, and a floor of zero or more; got {floor}")
    for k, table in enumerate(fishers):
        if set(table) != set(fishers[0]):
            odd = sorted(set(table) ^ set(fishers[0]))
            raise ValueError(f"the Fishers of members 0 and {k} are not of the same tensors: {', '.join(odd[:5])}")
        for name, value in table.items():
            if not bool((torch.isfinite(value) & (value >= 0)).all()):
                raise ValueError(f"the Fisher of member {k} for {name!r} has elements that are negative, NaN or Inf")
