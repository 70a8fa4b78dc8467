"""Members' mixing weights as every pool reads them: checked, in float64, one row per member and example."""

import torch
from torch import Tensor


def member_weights(outputs: Tensor, weights: Tensor | None) -> Tensor:
    """Spread `weights` ([K], [K, N] or None for equal ones) to float64 `[K, N]` for `outputs` `[K, N, ...]`.

    They are not normalised here: sums of weights of several blocks of members must still add up.
    Refused with `ValueError`: no member, a shape that is neither `[K]` nor `[K, N]`, negative or non-finite weights.
    Refused with `TypeError`: outputs that are not floating point.
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
    spread = weights.to(device=outputs.device, dtype=torch.float64)
    if not bool(torch.isfinite(spread).all()) or bool((spread < 0).any()):
        raise ValueError("weights must be finite and not negative")
    return spread if spread.ndim == 2 else spread[:, None].expand(shape)
