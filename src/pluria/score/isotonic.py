"""Decomposition of the Brier score without bins: miscalibration - discrimination + uncertainty, by isotonic regression.

    score             mean (f - o)^2                    forecasts f in [0, 1], outcomes o in {0, 1}
    uncertainty       mean (o_bar - o)^2                the constant forecast o_bar = mean o
    miscalibration    score - mean (r - o)^2            r = isotonic regression of o on f, the best recalibration of f
    discrimination    uncertainty - mean (r - o)^2

All parts are >= 0 and the identity is exact, which the binned decomposition of Murphy is not.
Source: Dimitriadis, Gneiting and Jordan, PNAS 2021 (CORP).
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pluria.score.rows import IGNORED, kept_rows

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Decomposition:
    """Parts of a mean Brier score: score = miscalibration - discrimination + uncertainty."""

    score: float
    miscalibration: float
    discrimination: float
    uncertainty: float

    def __add__(self, other: "Decomposition") -> "Decomposition":
        """Part by part, for scores that are sums over classes."""
        return Decomposition(
            self.score + other.score,
            self.miscalibration + other.miscalibration,
            self.discrimination + other.discrimination,
            self.uncertainty + other.uncertainty,
        )


def recalibrated(forecasts: Tensor, outcomes: Tensor) -> Tensor:
    """Isotonic regression of outcomes `[N]` on forecasts `[N]`: the CORP reliability curve, float64 `[N]`.

    Equal forecasts get equal values. `ValueError` for other shapes, N = 0 and values that are not finite.

    >>> recalibrated(torch.tensor([0.1, 0.2, 0.3]), torch.tensor([0.0, 1.0, 0.0]))
    tensor([0.0000, 0.5000, 0.5000], dtype=torch.float64)
    """
    if forecasts.ndim != 1 or forecasts.shape != outcomes.shape or len(forecasts) == 0:
        shapes = f"{list(forecasts.shape)} and {list(outcomes.shape)}"
        raise ValueError(f"forecasts and outcomes must both be [N] with N > 0, not {shapes}")
    f, o = (tensor.detach().cpu().to(torch.float64).numpy() for tensor in (forecasts, outcomes))
    if not (np.isfinite(f).all() and np.isfinite(o).all()):
        raise ValueError("forecasts and outcomes must be finite")
    _, place, count = np.unique(f, return_inverse=True, return_counts=True)
    totals = np.bincount(place, weights=o, minlength=len(count))
    return torch.from_numpy(_pool_adjacent(totals / count, count.astype(np.float64))[place]).to(forecasts.device)


def corp(forecasts: Tensor, outcomes: Tensor) -> Decomposition:
    """Decompose the Brier score mean (f - o)^2 of probabilities `[N]` and outcomes `[N]` in {0, 1} (or bool).

    Refused with `ValueError`: what `recalibrated` refuses, forecasts outside [0, 1] and outcomes other than 0 and 1.

    >>> corp(torch.tensor([0.5, 0.5]), torch.tensor([0, 1]))
    Decomposition(score=0.25, miscalibration=0.0, discrimination=0.0, uncertainty=0.25)
    """
    curve = recalibrated(forecasts, outcomes)
    f, o = forecasts.to(torch.float64), outcomes.to(torch.float64)
    if not bool(((f >= 0) & (f <= 1)).all()) or not bool(((o == 0) | (o == 1)).all()):
        raise ValueError("forecasts must be probabilities in [0, 1] and outcomes 0 or 1")
    score, best, constant = (float((r - o).square().mean()) for r in (f, curve, o.mean()))
    return Decomposition(score, score - best, constant - best, constant)


def corp_confidence(log_probs: Tensor, y: Tensor, *, ignore_index: int = IGNORED) -> Decomposition:
    """CORP of the most probable class: its probability as forecast, whether it is the target as outcome.

    `log_probs` are pooled `[N, C]`, y `[N]`. Its miscalibration is the binning-free relative of the squared ECE.
    """
    rows, targets = kept_rows(log_probs, y, ignore_index=ignore_index)
    return corp(rows.amax(-1).exp().clamp(max=1.0), rows.argmax(-1) == targets)


def corp_brier(log_probs: Tensor, y: Tensor, *, ignore_index: int = IGNORED) -> Decomposition:
    """CORP of the multi-class Brier score: one class against the rest, summed over the classes.

    It is a loop over C isotonic regressions of N rows.
    """
    rows, targets = kept_rows(log_probs, y, ignore_index=ignore_index)
    probs = rows.exp().clamp(max=1.0)
    parts = [corp(probs[:, c], targets == c) for c in range(probs.shape[1])]
    return sum(parts[1:], start=parts[0])


def _pool_adjacent(values: Array, counts: Array) -> Array:
    """Non-decreasing least-squares fit to `values` with `counts`: neighbours out of order are pooled."""
    means: list[float] = []
    masses: list[float] = []
    lengths: list[int] = []
    for value, count in zip(values.tolist(), counts.tolist(), strict=True):
        length = 1
        while means and means[-1] >= value:
            mass = masses.pop()
            value = (means.pop() * mass + value * count) / (mass + count)
            count += mass
            length += lengths.pop()
        means.append(value)
        masses.append(count)
        lengths.append(length)
    return np.repeat(np.array(means), lengths)
