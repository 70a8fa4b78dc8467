"""DARE: most of every task vector is dropped at random, and the rest made larger, before they are added.

    d_k = m_k tau_k / p      m_k = 1 with probability p      merged = theta_0 + sum_k s_k K w_k d_k

Each task vector stays what it is in the mean, and p of .1 is often enough. With `elect` the d_k are merged by elected
signs as in TIES, in place of the sum. Named forms:

    "paper"      divided by p; signs by weight
    "mergekit"   in place of 1/p, what keeps the sum of magnitudes of each tensor; signs by weight
    "peft"       divided by p; signs by count

The mergekit form is biased where tensors are small. Source: Yu et al., "Language models are super Mario", ICML 2024.
"""

from __future__ import annotations

from functools import partial
from typing import Literal

import torch
from torch import Tensor

from pluria.core.reduce import weighted_sum
from pluria.merge.rule import Piece, Rule
from pluria.merge.signs import ballot, elected
from pluria.merge.task import Scale, coefficients
from pluria.merge.thinning import lengths, stays
from pluria.merge.ties import Density, densities
from pluria.numbers.key import Key

Spec = Literal["paper", "mergekit", "peft"]


def dare(
    *,
    density: Density = 0.1,
    elect: bool = False,
    spec: Spec = "paper",
    scale: Scale = 1.0,
    divided: bool = True,
    key: Key | int = 0,
) -> Rule:
    """The rule of DARE; it needs a base.

    density   the probability p of an element to stay, in (0, 1], for all members or for each
    elect     elect signs too (DARE with TIES)
    scale     as in `task_arithmetic`; of the mean, and one number, where signs are elected
    divided   where signs are elected, whether it is a mean, or else the sum of those that agree times their weights
    key       with the tensor's name, the member's position and the element it says what is dropped
    """
    held, members = densities(density)
    chance = held[:, None]
    if spec not in ("paper", "mergekit", "peft"):
        raise ValueError(f"spec is 'paper', 'mergekit' or 'peft'; got {spec!r}")
    thin = partial(_thinned, chance, key if isinstance(key, Key) else Key(key))

    def combine(piece: Piece, factors: Tensor | None) -> Tensor:
        grown = thin(piece).to(torch.float64) * (1 / chance if factors is None else factors[:, None])
        return piece.origin + summed(piece, grown, scale, elect=elect, by_count=spec == "peft", divided=divided)

    return Rule(combine, lengths(thin) if spec == "mergekit" else (), needs_base=True, members=members, between=False)


def summed(
    piece: Piece, deltas: Tensor, scale: Scale, *, elect: bool, by_count: bool = False, divided: bool = True
) -> Tensor:
    """Task vectors `[K, n]` merged: their sum, or `scale` times their mean, or undivided sum, by elected signs."""
    if not elect:
        return weighted_sum(deltas, coefficients(piece, scale))
    if not isinstance(scale, int | float):
        raise ValueError(f"where signs are elected, scale is one number, of the mean; got {scale}")
    votes = ballot(deltas, (piece.weights > 0).double() if by_count else piece.weights)
    return scale * elected(deltas, piece.weights, votes, by_count=by_count, divided=divided)


def _thinned(chance: Tensor, key: Key, piece: Piece) -> Tensor:
    return torch.where(stays(piece, chance, key), piece.deltas, 0.0)
