"""Telling rows apart by uncertainty: scores per example, detection (AUROC, FPR) and selective prediction (AURC).

    auroc     P(positive scores higher than negative) + P(equal) / 2
    fpr_at    least share of negatives at or above a threshold that at least 95 % of the positives reach
    risk      r(k/N) = mean loss of the k least uncertain rows          coverage k/N, k = 1..N
    aurc      mean over k of r(k/N)
    augrc     mean over k of k/N r(k/N)
    excess    aurc - ( r + (1 - r) log(1 - r) ), r the overall error: what a perfect order of 0/1 losses would leave

Larger scores mean more uncertain. Tied rows have no order: each counts with its ties' mean loss, the expectation over
random orders, so that no figure depends on the order of the rows. All arithmetic is float64, since softmax squeezes
confident rows together. None is a sum over examples, so all rows are needed at once.
Sources: Geifman and El-Yaniv, NeurIPS 2017; Geifman, Uziel and El-Yaniv, ICLR 2019 (excess); Traub et al., NeurIPS 2024
(augrc).
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor


def auroc(scores: Tensor, positive: Tensor) -> float:
    """Area under the ROC curve of scores `[N]` for the positive rows (bool `[N]`: wrong, or out of distribution).

    `ValueError` for other shapes, NaN, and where one of the two kinds is missing.

    >>> auroc(torch.tensor([0.1, 0.4, 0.4, 0.8]), torch.tensor([False, False, True, True]))
    0.875
    """
    high, low = _split(scores, positive)
    ordered = low.sort().values
    below = torch.searchsorted(ordered, high, right=False) + torch.searchsorted(ordered, high, right=True)
    return float(below.to(torch.float64).mean() / (2 * len(low)))


def fpr_at(scores: Tensor, positive: Tensor, *, tpr: float = 0.95) -> float:
    """Least false positive rate among thresholds `score >= t` that keep at least `tpr` of the positives (FPR@95).

    Refused: what `auroc` refuses, and a `tpr` outside (0, 1].

    >>> fpr_at(torch.tensor([0.1, 0.5, 0.4, 0.8]), torch.tensor([False, False, True, True]))
    0.5
    """
    if not 0 < tpr <= 1:
        raise ValueError(f"tpr must be in (0, 1], not {tpr}")
    high, low = _split(scores, positive)
    needed = math.ceil(tpr * len(high) - 1e-9)  # 0.55 * 100 is 55.00000000000001 and must ask for 55
    threshold = high.sort(descending=True).values[max(needed, 1) - 1]
    return float((low >= threshold).to(torch.float64).mean())


@dataclass(frozen=True, eq=False)
class RiskCoverage:
    """Risk-coverage curve, float64 `[N]`: mean loss `risk[k-1]` of the k least uncertain rows at coverage k/N."""

    coverage: Tensor
    risk: Tensor

    @property
    def aurc(self) -> float:
        """Area under the curve: the mean risk over the coverages 1/N, 2/N, ..., 1."""
        return float(self.risk.mean())

    @property
    def augrc(self) -> float:
        """Area under the generalised curve: the mean over coverages of the rate of undetected losses."""
        return float((self.coverage * self.risk).mean())

    @property
    def excess(self) -> float:
        """AURC above that of a perfect order in the limit of many rows; for 0/1 losses only."""
        r = self.risk[-1]
        return self.aurc - float(r + torch.special.xlog1py(1 - r, -r))

    def coverage_at(self, risk: float) -> float:
        """The largest coverage whose risk is at most `risk`; 0.0 where there is none."""
        admissible = self.coverage[self.risk <= risk]
        return float(admissible.max()) if len(admissible) else 0.0

    def risk_at(self, coverage: float) -> float:
        """The risk at the least k/N that is at least `coverage`; `ValueError` outside (0, 1]."""
        if not 0 < coverage <= 1:
            raise ValueError(f"coverage must be in (0, 1], not {coverage}")
        return float(self.risk[self.coverage >= coverage][0])


def risk_coverage(uncertainty: Tensor, loss: Tensor) -> RiskCoverage:
    """The risk-coverage curve of uncertainties `[N]` and losses `[N]` (0/1 errors, NLL, squared errors).

    `ValueError` for other shapes, N = 0 and NaN.

    >>> curve = risk_coverage(torch.tensor([0.1, 0.2, 0.3, 0.4]), torch.tensor([0.0, 0.0, 1.0, 0.0]))
    >>> curve.risk.tolist(), curve.coverage_at(0.2)
    ([0.0, 0.0, 0.3333333333333333, 0.25], 0.5)
    """
    _check_rows(uncertainty, loss)
    n = len(loss)
    _, tie, size = torch.unique(uncertainty.to(torch.float64), return_inverse=True, return_counts=True)
    totals = torch.zeros(len(size), dtype=torch.float64, device=loss.device)
    totals = totals.index_add(0, tie, loss.to(torch.float64))
    ranks = torch.arange(1, n + 1, dtype=torch.float64, device=loss.device)
    return RiskCoverage(ranks / n, (totals / size).repeat_interleave(size).cumsum(0) / ranks)


def aurc(uncertainty: Tensor, loss: Tensor) -> float:
    """Area under the risk-coverage curve, the mean risk over the coverages 1/N, 2/N, ..., 1.

    >>> aurc(torch.tensor([0.1, 0.2]), torch.tensor([0.0, 1.0]))
    0.25
    """
    return risk_coverage(uncertainty, loss).aurc


def _check_rows(scores: Tensor, other: Tensor) -> None:
    if scores.ndim != 1 or scores.shape != other.shape or len(scores) == 0:
        raise ValueError(f"both must be [N] with N > 0, not {list(scores.shape)} and {list(other.shape)}")
    if bool(scores.isnan().any()) or bool(other.isnan().any()):
        raise ValueError("scores and losses must not hold NaN: such rows have no place in the order")


def _split(scores: Tensor, positive: Tensor) -> tuple[Tensor, Tensor]:
    _check_rows(scores, positive)
    if positive.dtype != torch.bool:
        raise ValueError(f"the positive rows must be a bool mask, not {positive.dtype}")
    if bool(positive.all()) or not bool(positive.any()):
        raise ValueError("detection needs positive and negative rows; one of the two is missing")
    wide = scores.to(torch.float64)
    return wide[positive], wide[~positive]
