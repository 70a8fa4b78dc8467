"""Levels of quantiles: `[Q]`, increasing inside (0, 1)."""

from __future__ import annotations

import torch
from torch import Tensor


def checked_levels(levels: Tensor, size: int) -> Tensor:
    """The levels in float64; ValueError unless there are `size` of them, 1 or more, and they increase inside (0, 1).

    >>> checked_levels(torch.tensor([0.25, 0.75]), 2)
    tensor([0.2500, 0.7500], dtype=torch.float64)
    """
    shares = levels.to(torch.float64)
    if shares.shape != (size,) or size == 0:
        raise ValueError(f"levels must be [{size}] for these quantiles, not {list(levels.shape)}")
    if not bool((shares.diff() > 0).all()) or not 0 < float(shares[0]) <= float(shares[-1]) < 1:
        raise ValueError(f"levels must increase inside (0, 1), not {shares.tolist()}")
    return shares
