"""Elected signs: at each place the members agree on one sign, and only those that have it are averaged.

    by weight   s = sign sum_k w_k v_k    A = {k: sign v_k = s}    sum_{k in A} w_k v_k / sum_{k in A} w_k
    by count    s = sign sum_k v_k        A = {k: sign v_k = s}    sum_{k in A} K w_k v_k / |A|

Both are the same for equal weights. Source: Yadav et al., "TIES-Merging: resolving interference when merging models",
NeurIPS 2023.
"""

from __future__ import annotations

import torch
from torch import Tensor


def elected(deltas: Tensor, weights: Tensor, *, by_count: bool = False, tie: float = 1.0) -> Tensor:
    """Means of task vectors `[K, n]` over those that have the elected sign, float64 `[n]`; zero where nobody has it.

    tie   the sign where the votes sum to zero
    """
    deltas, shares = deltas.to(torch.float64), weights[:, None]
    sign = vote(deltas, weights, by_count=by_count)
    agree = deltas.sign() == torch.where(sign == 0, tie, sign)
    total = torch.where(agree, deltas * (len(weights) * shares if by_count else shares), 0.0).sum(0)
    taken = torch.where(agree, torch.ones_like(shares) if by_count else shares, 0.0).sum(0)
    return torch.where(taken > 0, total / taken, 0.0)


def vote(deltas: Tensor, weights: Tensor, *, by_count: bool = False) -> Tensor:
    """The sign of the sum of task vectors `[K, n]`, `[n]`: -1, 0 or 1."""
    return (deltas if by_count else deltas * weights[:, None]).sum(0).sign()
