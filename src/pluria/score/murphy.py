"""Decomposition of the Brier score by bins of the forecast, exact: the terms within the bins are kept.

    score         mean (f - o)^2                              forecasts f in [0, 1], outcomes o in {0, 1}
    reliability   sum_b n_b/N (mean f_b - mean o_b)^2
    resolution    sum_b n_b/N (mean o_b - mean o)^2
    uncertainty   mean o (1 - mean o)
    within        sum_b n_b/N ( variance of f in b - 2 covariance of f and o in b )

    score = reliability - resolution + uncertainty + within

Murphy's three terms are exact only where all forecasts of a bin are equal; else `within` is what they leave out. For C
classes the parts are sums over the classes, each against the rest. Bins of equal width, the last one closed.
Sources: Murphy, Journal of Applied Meteorology 1973; Stephenson, Coelho and Jolliffe, Weather and Forecasting 2008.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from pluria.score.bins import equal_width
from pluria.score.calibration import some_rows
from pluria.score.rows import IGNORED


@dataclass(frozen=True)
class Murphy:
    """Parts of a mean Brier score: score = reliability - resolution + uncertainty + within."""

    score: float
    reliability: float
    resolution: float
    uncertainty: float
    within: float


def murphy(forecasts: Tensor, outcomes: Tensor, *, bins: int = 10) -> Murphy:
    """Decompose the Brier score of probabilities `[N]` or `[N, C]` and outcomes of that shape, 0 or 1 (or bool).

    Columns are decomposed one by one and added. Refused with `ValueError`: other shapes, no row, no bin, forecasts
    outside [0, 1] and outcomes other than 0 and 1.

    >>> murphy(torch.tensor([0.75, 0.75]), torch.tensor([1, 0]))
    Murphy(score=0.3125, reliability=0.0625, resolution=0.0, uncertainty=0.25, within=0.0)
    """
    if forecasts.ndim not in (1, 2) or forecasts.shape != outcomes.shape or forecasts.numel() == 0:
        shapes = f"{list(forecasts.shape)} and {list(outcomes.shape)}"
        raise ValueError(f"forecasts and outcomes must both be [N] or [N, C] and not empty, not {shapes}")
    f, o = (tensor.to(torch.float64).reshape(len(forecasts), -1) for tensor in (forecasts, outcomes))
    if not bool(((f >= 0) & (f <= 1)).all()) or not bool(((o == 0) | (o == 1)).all()):
        raise ValueError("forecasts must be probabilities in [0, 1] and outcomes 0 or 1")
    parts = torch.stack([_parts(f[:, c], o[:, c], bins) for c in range(f.shape[1])]).sum(0)
    return Murphy(*(parts / len(f)).tolist())


def murphy_brier(log_probs: Tensor, y: Tensor, *, bins: int = 10, ignore_index: int = IGNORED) -> Murphy:
    """Decompose the multi-class Brier score of pooled log-probabilities `[N, C]` at classes `[N]`.

    Refused with `ValueError`: what `brier` refuses, no row and no bin.
    """
    rows, targets = some_rows(log_probs, y, bins, ignore_index)
    outcomes = torch.nn.functional.one_hot(targets, rows.shape[1])
    return murphy(rows.exp().clamp(max=1.0), outcomes, bins=bins)


def _parts(f: Tensor, o: Tensor, bins: int) -> Tensor:
    """N times each part `[5]` for one column."""
    bin_of = equal_width(f, bins)
    count = torch.bincount(bin_of, minlength=bins).clamp(min=1).to(torch.float64)
    mean_f, mean_o = (torch.bincount(bin_of, weights=v, minlength=bins) / count for v in (f, o))
    apart_f, apart_o = f - mean_f[bin_of], o - mean_o[bin_of]
    return torch.stack(
        [
            (f - o).square().sum(),
            (mean_f - mean_o)[bin_of].square().sum(),
            (mean_o[bin_of] - o.mean()).square().sum(),
            o.sum() * (1 - o.mean()),
            (apart_f.square() - 2 * apart_f * apart_o).sum(),
        ]
    )
