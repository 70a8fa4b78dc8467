"""DELLA: elements of a task vector are dropped at random, small ones more often, and the rest made larger.

    r = rank of |tau| in its row, 0 for the smallest of n      chance to stay p = density + width (r / (n - 1) - 1/2)

    "paper"      width = eps         d = m tau / p
    "mergekit"   width = 2 eps       d = m tau times what keeps the sum of magnitudes of each tensor

Then signs are elected as in TIES, or with `elect=False` the d are summed. A row is of all axes but the first; a vector
is one row. Source: Deep, Bhardwaj and Poria, "DELLA-Merging: reducing interference in model merging through
magnitude-based sampling", 2024.
"""

from __future__ import annotations

from functools import partial
from typing import Literal

import torch
from torch import Tensor

from pluria.merge.dare import summed
from pluria.merge.rule import Piece, Rule, row_length
from pluria.merge.task import Scale
from pluria.merge.thinning import lengths, stays
from pluria.merge.ties import Density, densities
from pluria.numbers.key import Key

Spec = Literal["paper", "mergekit"]


def della(
    *,
    density: Density = 0.5,
    epsilon: float = 0.15,
    elect: bool = True,
    spec: Spec = "paper",
    scale: Scale = 1.0,
    divided: bool = True,
    key: Key | int = 0,
) -> Rule:
    """The rule of DELLA; it needs a base.

    density   the mean chance of an element to stay, for all members or for each
    epsilon   how far chances go apart: by eps in all in the paper's form, by 2 eps in mergekit's
    scale     as in `dare`, and so is `divided`

    Raises ValueError where a chance would leave [0, 1], or be zero in the paper's form, which divides by it.
    """
    if spec not in ("paper", "mergekit"):
        raise ValueError(f"spec is 'paper' or 'mergekit'; got {spec!r}")
    width = epsilon if spec == "paper" else 2 * epsilon
    held, members = densities(density)
    low, high = float(held.min()) - width / 2, float(held.max()) + width / 2
    if epsilon < 0 or low < 0 or high > 1 or not high > 0 or (spec == "paper" and low == 0):
        raise ValueError(f"chances go from {low:.3g} to {high:.3g}; give a density and an epsilon within (0, 1]")
    thin = partial(_thinned, held[:, None], width, key if isinstance(key, Key) else Key(key), spec == "paper")

    def combine(piece: Piece, factors: Tensor | None) -> Tensor:
        grown = thin(piece) if factors is None else thin(piece) * factors[:, None]
        return piece.origin + summed(piece, grown, scale, elect=elect, divided=divided)

    return Rule(
        combine,
        lengths(thin) if spec == "mergekit" else (),
        needs_base=True,
        members=members,
        pieces="row",
        between=False,
    )


def _thinned(density: Tensor, width: float, key: Key, divided: bool, piece: Piece) -> Tensor:
    """What stays of the task vectors, float64 `[K, n]`, divided by its chance if asked for."""
    deltas = piece.deltas.to(torch.float64)
    chance = density + width * (_ranks(deltas, row_length(piece.shape)) - 0.5)
    return torch.where(stays(piece, chance, key), deltas / chance if divided else deltas, 0.0)


def _ranks(deltas: Tensor, row: int) -> Tensor:
    """Ranks of magnitudes in their rows from 0 to 1, `[K, n]`; the first of equal ones is the lower."""
    if row == 1:
        return torch.full_like(deltas, 0.5)
    order = deltas.abs().view(len(deltas), -1, row).argsort(dim=-1, stable=True)
    places = torch.arange(row, dtype=torch.float64).expand(order.shape)
    return torch.empty_like(places).scatter_(-1, order, places).view(deltas.shape) / (row - 1)
