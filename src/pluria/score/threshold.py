"""Threshold-weighted CRPS of an ensemble: only what lies between two thresholds counts.

    integral over z in [lower, upper] of ( F(z) - 1[y <= z] )^2  =  CRPS of clamp(members) at clamp(y)

It is proper, and the parts below and above a threshold add up to the CRPS. Judging only the rows whose outcome was
extreme would not be proper: it rewards forecasters who always cry wolf.
Sources: Gneiting and Ranjan, Journal of Business and Economic Statistics 2011; Allen, Ginsbourger and Ziegel, SIAM/ASA
Journal on Uncertainty Quantification 2023 (the clamp).
"""

import math

from torch import Tensor

from pluria.score.regression import crps


def threshold_crps(
    outputs: Tensor,
    y: Tensor,
    weights: Tensor | None = None,
    *,
    lower: float = -math.inf,
    upper: float = math.inf,
    fair: bool = False,
) -> Tensor:
    """CRPS of members' outputs `[K, N]` at y `[N]` between two thresholds, in the unit of y; float64 `[N]`.

    Refused with `ValueError`: what `crps` refuses, and thresholds that are NaN or not in order.

    >>> import torch
    >>> threshold_crps(torch.tensor([[0.0], [4.0]]), torch.tensor([3.0]), lower=2.0)  # of [2, 4] and 3
    tensor([0.5000], dtype=torch.float64)
    """
    if not lower < upper:
        raise ValueError(f"the lower threshold must lie below the upper one; got {lower} and {upper}")
    return crps(outputs.clamp(lower, upper), y.clamp(lower, upper), weights, fair=fair)
