"""Members' mixing weights, checked once for every verb: finite, not negative, one for each member (and example)."""

from __future__ import annotations

import torch
from torch import Tensor


def spread_weights(outputs: Tensor, weights: Tensor | None) -> Tensor:
    """Weights `[K]`, `[K, N]` or None (ones) as float64 `[K, N]` for outputs `[K, N, ...]`, not normalised.

    Sums over several blocks of members must still add up, hence no normalisation. Raises TypeError for outputs that
    are not floating point, ValueError for no member, another shape, negative or non-finite weights.
    """
    if not outputs.is_floating_point():
        raise TypeError(f"outputs must be floating point, not {outputs.dtype}; convert them first")
    if outputs.ndim < 2 or outputs.shape[0] == 0:
        raise ValueError(f"outputs must be [K, N, ...] with at least one member, not {list(outputs.shape)}")
    shape = outputs.shape[:2]
    if weights is None:
        return torch.ones(shape, dtype=torch.float64, device=outputs.device)
    if weights.shape not in (shape[:1], shape):
        raise ValueError(f"weights must be [{shape[0]}] or {list(shape)} for these outputs, not {list(weights.shape)}")
    spread = checked_weights(weights).to(outputs.device)
    return spread if spread.ndim == 2 else spread[:, None].expand(shape)


def checked_weights(weights: Tensor) -> Tensor:
    """Weights in float64; ValueError unless all are finite and none is negative."""
    wide = torch.as_tensor(weights).detach().to(torch.float64)
    if not bool(torch.isfinite(wide).all()) or bool((wide < 0).any()):
        raise ValueError(f"weights must be finite and not negative; got {wide.flatten()[:8].tolist()}")
    return wide


def common(weights: Tensor) -> tuple[Tensor, float]:
    """Numbers `[K]` and a factor that give the weights; ones where all are equal, so that what cancels does exactly."""
    first = float(weights[0])
    if first and bool((weights == first).all()):
        return torch.ones_like(weights), first
    return weights, 1.0
