"""Every figure of one arm from its kept outputs: before and after temperature, against K, diversity, reliability.

    before   the mean of the members' probabilities          after   the arm's pool, then a temperature

Pool and temperature are fitted on the calibration rows and applied to the figure rows; nothing else is fitted.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pluria.pool import mean_logit
from pluria.recipe.outputs import Outputs
from pluria.recipe.pools import Answer, Pool, answer, best_pool, calibrated
from pluria.recipe.together import together
from pluria.score import (
    AMBIGUITY,
    BRIER,
    DISAGREEMENT,
    ECE,
    ERROR,
    GEOMETRIC_NLL,
    MEMBER_ERROR,
    MEMBER_NLL,
    MUTUAL_INFORMATION,
    NLL,
    adaptive_ece,
    aurc,
    auroc,
    bootstrap_mean,
    confidence,
    ece,
    error,
    max_probability,
    member_sums,
    nll,
    reliability,
    tally,
)

PROPER = (NLL, ERROR, BRIER, ECE)
BINS = 15
DIVERSITY = (MEMBER_NLL, GEOMETRIC_NLL, AMBIGUITY, DISAGREEMENT, MUTUAL_INFORMATION, MEMBER_ERROR)


@dataclass(frozen=True)
class Measured:
    """Figures of one arm and seed as plain data, its pool with a temperature, and NLL per example `[M]` for pairs."""

    figures: dict[str, Any]
    answer: Answer
    nll: Tensor
    nll_scaled: Tensor


def measure(calibration: Outputs, figures: Outputs, pool: Pool | None = None) -> Measured:
    """All figures of one arm; the pool that comes before the temperature is chosen here unless it is given."""
    pool = best_pool([calibrated(calibration)]) if pool is None else pool
    fitted = answer(pool, calibration)
    pooled, scaled = figures.pooled(), fitted(figures)
    found = {
        "scores": scores(pooled, figures.y),
        "scaled": scores(scaled, figures.y),
        "temperature": fitted.temperature.value,
        "temperature_clamped": fitted.temperature.clamped,
        "calibration_nll": float(nll(calibration.pooled(), calibration.y).mean()),
        "calibration_nll_scaled": fitted.loss,
        "geometric": scores(mean_logit(figures.logits.to(torch.float64), figures.weights), figures.y),
        "diversity": diversity(figures),
        "joint": together(calibration, figures),
        "curve": [point(calibration, figures, k, pool) for k in sizes(len(figures.logits))],
        "reliability": diagram(pooled, figures.y),
        "reliability_scaled": diagram(scaled, figures.y),
    }
    if (spent := fitted.asked(figures.logits)) is not None:
        found["asked"] = list(spent.reached)
    return Measured(found, fitted, *(figures.by_example(nll(rows, figures.y)) for rows in (pooled, scaled)))


def scores(log_probs: Tensor, y: Tensor) -> dict[str, float]:
    """NLL, error, Brier, ECE, adaptive ECE, and how well confidence finds the errors."""
    found = tally(PROPER, log_probs, y).figures()
    wrong, unsure = error(log_probs, y), max_probability(log_probs)
    found["adaptive_ece"] = adaptive_ece(log_probs, y)
    found["aurc"] = aurc(unsure, wrong)
    both = 0 < float(wrong.sum()) < len(wrong)
    found["error_auroc"] = auroc(unsure, wrong > 0) if both else float("nan")
    return {name: value for name, value in found.items() if value == value}


def diversity(outputs: Outputs) -> dict[str, float]:
    """Mean member NLL (a), NLL of the averaged logits (c), ambiguity a - c, disagreement, mutual information."""
    logits = outputs.logits.to(torch.float64)
    return tally(DIVERSITY, outputs.pooled(), outputs.y, members=member_sums(logits, outputs.weights)).figures()


def sizes(members: int) -> list[int]:
    """1, 2, 4, ... and the number of members."""
    return sorted({2**j for j in range(members.bit_length()) if 2**j <= members} | {members})


def point(calibration: Outputs, figures: Outputs, k: int, pool: Pool) -> dict[str, Any]:
    """NLL and ECE of the first k members, before and after temperature, with bootstrap intervals of the NLL."""
    fitted, some = answer(pool, calibration.first(k)), figures.first(k)
    found: dict[str, Any] = {"k": k}
    for suffix, rows in (("", some.pooled()), ("_scaled", fitted(some))):
        band = bootstrap_mean(figures.by_example(nll(rows, figures.y)), seed=0, draws=500)
        found |= {f"nll{suffix}": band.estimate, f"nll{suffix}_low": band.low, f"nll{suffix}_high": band.high}
        found |= _ece_band(rows, figures.y, suffix)
    return found


def diagram(log_probs: Tensor, y: Tensor) -> dict[str, list[float]]:
    """Count, mean confidence and accuracy of each of 15 bins."""
    bins = reliability(log_probs, y)
    parts = {"count": bins.count, "confidence": bins.confidence, "accuracy": bins.accuracy}
    return {name: [float(v) for v in values.nan_to_num()] for name, values in parts.items()}


def _ece_band(rows: Tensor, y: Tensor, suffix: str, draws: int = 100) -> dict[str, float]:
    """ECE and its estimate -+ 1.96 standard deviations over resampled rows.

    Resampling itself raises the ECE, so its percentiles would not cover the estimate.
    """
    generator, count = torch.Generator().manual_seed(0), len(y)
    sure, right = confidence(rows).to(torch.float64), 1.0 - error(rows, y).to(torch.float64)
    bins, gaps = (sure * BINS).long().clamp(max=BINS - 1), right - sure
    picks = (torch.randint(count, (count,), generator=generator) for _ in range(draws))
    again = [torch.bincount(bins[i], weights=gaps[i], minlength=BINS).abs().sum() / count for i in picks]
    found, spread = ece(rows, y), 1.96 * float(torch.stack(again).std())
    return {f"ece{suffix}": found, f"ece{suffix}_low": max(found - spread, 0.0), f"ece{suffix}_high": found + spread}
