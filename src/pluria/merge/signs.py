"""Elected signs: at each place the members agree on one sign, and only those that have it are averaged.

    s = sign of sum_k v_k tau_k, a plus where it is zero        A = {k: tau_k has the sign s}
    by weight   sum_{k in A} w_k tau_k / sum_{k in A} w_k
    by count    sum_{k in A} K w_k tau_k / |A|
    undivided   the sum above the line alone

Source: Yadav et al., "TIES-Merging: resolving interference when merging models", NeurIPS 2023.
"""

from __future__ import annotations

import torch
from torch import Tensor

from pluria.core.reduce import weighted_sum
from pluria.core.weights import common
from pluria.numbers import members
from pluria.numbers.members import Bounds, Differences


def elected(
    deltas: Tensor, weights: Tensor, votes: Tensor, *, tie: float = 1.0, by_count: bool = False, divided: bool = True
) -> Tensor:
    """Means of task vectors `[K, n]` over those that have the sign of `votes` `[n]`; zero where nobody has it.

    tie       the sign where the votes are zero
    divided   whether it is a mean, or else the sum above the line

    The arithmetic is in the dtype of `deltas`, member after member.
    """
    taken_by, mass = _shares(weights, by_count, divided)
    if divided and votes.dtype == torch.float32 and members.serves(deltas, torch.float32):
        return members.elected(deltas, votes, taken_by, mass, tie)
    sign = torch.ones_like(votes).copysign_(votes).to(deltas.dtype)
    if tie < 0:
        sign.masked_fill_(votes == 0, -1.0)
    total, taken = torch.zeros_like(sign), torch.zeros_like(sign)
    for delta, each, factor in zip(deltas, taken_by, mass, strict=True):
        own = (delta * sign).clamp_(min=0)
        taken += own.sign().mul_(each)
        total += own.mul_(factor)
    if divided:
        # Where nobody has the sign, the total is zero.
        total.div_(taken.clamp_(min=1e-30))
    return total.mul_(sign)


def moved(
    apart: Differences, kept: Bounds, weights: Tensor, voices: Tensor, *, tie: float, by_count: bool, scale: float
) -> Tensor:
    """The base plus `scale` times what is `elected` by the `ballot` of task vectors that were kept: in one pass."""
    return members.mean_of_elected(apart, kept, _relative(voices), *_shares(weights, by_count, True), tie, scale)


def majority(apart: Differences, kept: Bounds, voices: Tensor) -> int:
    """At how many places the `ballot` of task vectors that were kept is above zero, less those where it is below."""
    return members.sum_of_signs(apart, kept, _relative(voices))


def ballot(deltas: Tensor, voices: Tensor) -> Tensor:
    """The sum of votes `[n]`: of task vectors `[K, n]`, each times its voice `[K]`."""
    return weighted_sum(deltas, common(voices)[0], dtype=deltas.dtype)


def _relative(voices: Tensor) -> list[float]:
    """Ones where all voices are equal, as in `ballot`."""
    return common(voices)[0].tolist()


def _shares(weights: Tensor, by_count: bool, divided: bool) -> tuple[list[float], list[float]]:
    """What each member counts for below the line, and above it."""
    present = (weights > 0).double()
    shares = (common(weights)[0] if divided else weights).tolist()
    return (present.tolist(), (present.sum() * weights).tolist()) if by_count else (shares, shares)
