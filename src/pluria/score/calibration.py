"""Calibration of the most probable class by bins of confidence: reliability, ECE, adaptive and debiased forms.

    ece           sum_b n_b/N |accuracy_b - confidence_b|
    debiased      sum_b n_b/N [ (accuracy_b - confidence_b)^2 - accuracy_b (1 - accuracy_b) / (n_b - 1) ]

Bin b of B equal widths is [b/B, (b+1)/B); the last one is closed, so a confidence of exactly 1 belongs to it (with an
extra bin for it, as torchmetrics issue 3510 describes, certain and wrong rows are judged apart). The ECE is biased
upwards: perfectly calibrated predictions give about .06 at N = 200 and .03 at N = 1000 with 15 bins. Never rank by it.
All take pooled log-probabilities `[N, C]` and class indices `[N]` and refuse what `nll` refuses, and having no row.
Sources: Guo et al., ICML 2017; Kumar, Liang and Ma, NeurIPS 2019 (debiased).
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from pluria.score.bins import check_bins, equal_mass, equal_width
from pluria.score.rows import IGNORED, kept_rows
from pluria.score.tally import Rows, Score

BINS = 15


@dataclass(frozen=True, eq=False)
class Reliability:
    """A reliability diagram: per bin the number of rows, mean confidence and accuracy `[B]` (NaN where it is empty).

    Class by class the three are `[C, B]`, and the figures run over all cells.
    """

    count: Tensor
    confidence: Tensor
    accuracy: Tensor

    @property
    def ece(self) -> float:
        """Expected calibration error: the mean gap |accuracy - confidence|, weighted by the bins' rows."""
        gaps = (self.accuracy - self.confidence).abs()
        return float((self.count * gaps.nan_to_num()).sum() / self.count.sum())

    @property
    def debiased(self) -> float:
        """Signed estimate of the SQUARED calibration error without the bias of small bins; below 0 is no mistake.

        Bins of fewer than two rows say nothing about it and are left out, with their rows. NaN where no bin has two.
        """
        used = self.count >= 2
        count, confidence, accuracy = self.count[used], self.confidence[used], self.accuracy[used]
        squares = (accuracy - confidence).square() - accuracy * (1 - accuracy) / (count - 1)
        return float((count * squares).sum() / count.sum())


def confidence(log_probs: Tensor) -> Tensor:
    """Probability of the most probable class, float64 `[N]` from log-probabilities `[N, C]`."""
    return log_probs.to(torch.float64).amax(-1).exp().clamp(max=1.0)


def reliability(log_probs: Tensor, y: Tensor, *, bins: int = BINS, ignore_index: int = IGNORED) -> Reliability:
    """The reliability diagram over `bins` equal widths.

    >>> diagram = reliability(torch.tensor([[0.9, 0.1], [0.7, 0.3]]).log(), torch.tensor([0, 1]), bins=2)
    >>> diagram.count, diagram.accuracy
    (tensor([0., 2.], dtype=torch.float64), tensor([   nan, 0.5000], dtype=torch.float64))
    """
    rows, targets = some_rows(log_probs, y, bins, ignore_index)
    values = confidence(rows)
    sums = _binned(values, _right(rows, targets), equal_width(values, bins), bins)
    return _diagram({name: values.sum(0) for name, values in sums.items()})


def ece(log_probs: Tensor, y: Tensor, *, bins: int = BINS, ignore_index: int = IGNORED) -> float:
    """Expected calibration error over `bins` equal widths.

    >>> round(ece(torch.tensor([[0.9, 0.1], [0.7, 0.3]]).log(), torch.tensor([0, 1])), 4)
    0.4
    """
    return reliability(log_probs, y, bins=bins, ignore_index=ignore_index).ece


def adaptive_reliability(log_probs: Tensor, y: Tensor, *, bins: int = BINS, ignore_index: int = IGNORED) -> Reliability:
    """The diagram over `bins` bins of equal mass: a row falls into bin floor(B * share of rows less confident than it).

    Rows of one confidence share a bin, so their order never matters. Where confidences differ, the sizes of the bins
    differ by at most one.
    """
    rows, targets = some_rows(log_probs, y, bins, ignore_index)
    values = confidence(rows)
    sums = _binned(values, _right(rows, targets), equal_mass(values, bins), bins)
    return _diagram({name: summed.sum(0) for name, summed in sums.items()})


def adaptive_ece(log_probs: Tensor, y: Tensor, *, bins: int = BINS, ignore_index: int = IGNORED) -> float:
    """Calibration error over bins of equal mass.

    >>> round(adaptive_ece(torch.tensor([[0.9, 0.1], [0.7, 0.3]]).log(), torch.tensor([0, 1]), bins=1), 4)
    0.3
    """
    return adaptive_reliability(log_probs, y, bins=bins, ignore_index=ignore_index).ece


def top_reliability(confidence: Tensor, right: Tensor, *, bins: int = BINS) -> Reliability:
    """The diagram over `bins` equal widths from confidences `[N]` in 0..1 and whether each row was right, bool `[N]`.

    For predictions whose probabilities are not kept, such as those over a large vocabulary. `ValueError` for other
    shapes, a confidence outside 0..1, no row and no bin.

    >>> round(top_reliability(torch.tensor([0.9, 0.7]), torch.tensor([True, False])).ece, 4)
    0.4
    """
    check_bins(bins)
    values = confidence.to(torch.float64)
    if values.ndim != 1 or len(values) == 0 or right.shape != values.shape or right.dtype != torch.bool:
        shapes = f"{list(confidence.shape)} and {right.dtype} {list(right.shape)}"
        raise ValueError(f"confidences [N] and bools [N] are wanted, a row or more; got {shapes}")
    if not bool(((values >= 0) & (values <= 1)).all()):
        raise ValueError("confidences are probabilities, from 0 to 1")
    sums = _binned(values, right, equal_width(values, bins), bins)
    return _diagram({name: summed.sum(0) for name, summed in sums.items()})


def some_rows(log_probs: Tensor, y: Tensor, bins: int, ignore_index: int) -> tuple[Tensor, Tensor]:
    """Checked float64 log-probabilities `[M, C]` and targets `[M]`, M > 0; `ValueError` for no row and no bin."""
    check_bins(bins)
    rows, targets = kept_rows(log_probs, y, ignore_index=ignore_index)
    if len(targets) == 0:
        raise ValueError("no row with a target is left to judge calibration on")
    return rows, targets


def _right(rows: Tensor, targets: Tensor) -> Tensor:
    return rows.argmax(-1) == targets


def _binned(values: Tensor, right: Tensor, bin_of: Tensor, bins: int) -> dict[str, Tensor]:
    """Per-example statistics `[N, B]` whose sums are a diagram: one row adds to one bin."""
    member = torch.nn.functional.one_hot(bin_of, bins).to(torch.float64)
    return {
        "count": member,
        "confidence": member * values[:, None],
        "correct": member * right.to(torch.float64)[:, None],
    }


def _diagram(sums: Mapping[str, Tensor]) -> Reliability:
    count = sums["count"]
    return Reliability(count, sums["confidence"] / count, sums["correct"] / count)


def _ece_statistics(rows: Rows) -> dict[str, Tensor]:
    log_probs, targets = kept_rows(rows.pooled, rows.targets)
    values = confidence(log_probs)
    return _binned(values, _right(log_probs, targets), equal_width(values, BINS), BINS)


def _ece_finish(sums: Mapping[str, Tensor], count: int) -> float:
    return _diagram(sums).ece


ECE = Score("ece", _ece_statistics, _ece_finish)
