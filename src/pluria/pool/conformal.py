"""Conformal adjustment of pooled quantiles: each central interval is widened or narrowed to the coverage it states.

    score of row n      s_n = max(l_n - y_n, y_n - u_n) / c_n          l, u at the levels a and 1 - a
    shift               d = the k-th smallest s,   k = ceil((1 - 2 a)(N + 1))
    adjusted interval   l - c d,  u + c d

For exchangeable rows the adjusted interval covers a new y with probability at least 1 - 2 a, whatever the quantiles
are. Rows of a time series are not exchangeable, and then this promises nothing. Intervals are shifted one by one, so
they can cross afterwards: repair them after the adjustment.
Source: Romano, Patterson and Candès, NeurIPS 2019 (CQR, symmetric).
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from pluria.core.levels import checked_levels


@dataclass(frozen=True)
class Conformal:
    """Shifts of the central intervals, widest first, for quantiles at `levels`; the median stays. Plain data."""

    levels: tuple[float, ...]
    shifts: tuple[float, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "levels", tuple(self.levels))
        object.__setattr__(self, "shifts", tuple(self.shifts))
        if len(self.shifts) != len(self.levels) // 2:
            raise ValueError(f"{len(self.levels)} levels have {len(self.levels) // 2} shifts, not {len(self.shifts)}")
        _paired(torch.tensor(self.levels, dtype=torch.float64))
        if not all(map(math.isfinite, self.shifts)):
            raise ValueError(f"shifts are finite; got {self.shifts}")

    def __call__(self, quantiles: Tensor, scale: Tensor | None = None) -> Tensor:
        """Adjusted quantiles `[..., N, Q]` in their dtype; `scale` `[N]` where the fit had one. Gaps stay gaps."""
        if quantiles.ndim < 2 or quantiles.shape[-1] != len(self.levels):
            raise ValueError(f"quantiles must be [..., N, {len(self.levels)}], not {list(quantiles.shape)}")
        signed = [*(-shift for shift in self.shifts), *[0.0] * (len(self.levels) % 2), *reversed(self.shifts)]
        shifts = torch.tensor(signed, dtype=torch.float64, device=quantiles.device)
        return (quantiles.to(torch.float64) + _sizes(scale, quantiles) * shifts).to(quantiles.dtype)


def fit_conformal(quantiles: Tensor, y: Tensor, levels: Tensor, *, scale: Tensor | None = None) -> Conformal:
    """The shifts for pooled quantiles `[N, Q]` at observations y `[N]`, on rows that neither fitted nor give figures.

    `scale` `[N]`, positive, divides the scores: give the size of what is forecast where rows differ in size. An
    interval counts the rows where both ends and y are there. Refused with `ValueError`: shapes that do not fit, levels
    that do not increase or are not symmetric around 1/2, too few rows for the widest interval (98 % needs 49).

    >>> quantiles = torch.tensor([[1.0, 2.0]]).repeat(3, 1)
    >>> fit_conformal(quantiles, torch.tensor([0.5, 1.5, 4.0]), torch.tensor([0.25, 0.75])).shifts
    (0.5,)
    """
    if quantiles.ndim != 2 or y.shape != quantiles.shape[:1] or levels.shape != quantiles.shape[1:]:
        shapes = f"{list(quantiles.shape)}, {list(y.shape)} and {list(levels.shape)}"
        raise ValueError(f"quantiles [N, Q], y [N] and levels [Q] do not fit: {shapes}")
    wide = _paired(levels)
    rows, observed = quantiles.to(torch.float64), y.to(torch.float64)[:, None]
    scores = torch.maximum(rows - observed, observed - rows.flip(-1)) / _sizes(scale, quantiles)
    half = range(len(wide) // 2)
    shifts = tuple(_smallest(scores[:, pair], float(1 - 2 * wide[pair])) for pair in half)
    return Conformal(tuple(wide.tolist()), shifts)


def _paired(levels: Tensor) -> Tensor:
    """Levels in float64 that increase, in pairs around 1/2; ValueError for others."""
    wide = checked_levels(levels, len(levels))
    if not torch.allclose(wide + wide.flip(0), torch.ones_like(wide), atol=1e-6) or len(wide) < 2:
        raise ValueError(f"levels must come in pairs around 1/2, not {wide.tolist()}")
    return wide


def _smallest(scores: Tensor, covered: float) -> float:
    kept = scores[~scores.isnan()]
    # Levels that came through float32 must not push a whole number over its ceiling.
    rank = max(1, math.ceil((covered - 1e-6) * (len(kept) + 1)))
    if rank > len(kept):
        needed = math.ceil((covered - 1e-6) / (1 - covered + 1e-6))
        raise ValueError(f"an interval of {covered:.1%} needs {needed} complete rows, not {len(kept)}")
    return float(kept.kthvalue(rank).values)


def _sizes(scale: Tensor | None, quantiles: Tensor) -> Tensor:
    """The rows' scale as `[N, 1]`, ones where there is none."""
    if scale is None:
        return torch.ones(quantiles.shape[-2], 1, dtype=torch.float64, device=quantiles.device)
    if scale.shape != quantiles.shape[-2:-1] or not bool((scale > 0).all()):
        raise ValueError(f"scale must be positive and [{quantiles.shape[-2]}], not {list(scale.shape)}")
    return scale.to(torch.float64)[:, None]
