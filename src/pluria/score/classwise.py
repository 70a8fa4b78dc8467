"""Calibration of every class, not of the most probable one alone.

    class-wise ECE   sum_cb n_cb / sum n  |frequency_cb - mean probability_cb|

Cell (c, b) holds the rows whose probability of class c lies in bin b; all rows count for each class. Bins of equal
width give the static calibration error, bins of equal mass (each class has its own) the adaptive one. With many classes
nearly all probabilities are near zero and drown the rest: `threshold` leaves the smaller ones out. The bias of small
bins is that of the ECE, only larger, since there are C times as many.
Sources: Nixon et al., CVPR workshops 2019; Kull et al., NeurIPS 2019.
"""

from typing import Literal

import torch
from torch import Tensor

from pluria.score.bins import equal_mass, equal_width
from pluria.score.calibration import BINS, Reliability, some_rows
from pluria.score.rows import IGNORED

BINNED = {"width": equal_width, "mass": equal_mass}


def classwise_reliability(
    log_probs: Tensor,
    y: Tensor,
    *,
    bins: int = BINS,
    equal: Literal["width", "mass"] = "width",
    threshold: float = 0.0,
    ignore_index: int = IGNORED,
) -> Reliability:
    """The diagrams of all classes, each field `[C, B]`, for pooled log-probabilities `[N, C]` and classes `[N]`.

    `confidence` is the mean probability of the class, `accuracy` how often it is the target. Probabilities below
    `threshold` do not count. Refused with `ValueError`: what `ece` refuses, another `equal`, a threshold outside
    [0, 1), and one that leaves nothing.

    >>> diagrams = classwise_reliability(torch.tensor([[0.9, 0.1], [0.7, 0.3]]).log(), torch.tensor([0, 1]), bins=2)
    >>> diagrams.count
    tensor([[0., 2.],
            [2., 0.]], dtype=torch.float64)
    """
    if equal not in BINNED or not 0 <= threshold < 1:
        raise ValueError(f"equal must be 'width' or 'mass' and threshold in [0, 1), not {equal!r} and {threshold}")
    rows, targets = some_rows(log_probs, y, bins, ignore_index)
    probs = rows.exp().clamp(max=1.0)
    sums = torch.stack([_cells(probs[:, c], targets == c, bins, equal, threshold) for c in range(probs.shape[1])], 1)
    count, confidence, correct = sums
    if not bool(count.any()):
        raise ValueError(f"no probability reaches the threshold {threshold}")
    return Reliability(count, confidence / count, correct / count)


def classwise_ece(
    log_probs: Tensor,
    y: Tensor,
    *,
    bins: int = BINS,
    equal: Literal["width", "mass"] = "width",
    threshold: float = 0.0,
    ignore_index: int = IGNORED,
) -> float:
    """Calibration error over the cells of all classes, weighted by their rows; arguments of `classwise_reliability`.

    >>> round(classwise_ece(torch.tensor([[0.9, 0.1], [0.7, 0.3]]).log(), torch.tensor([0, 1]), bins=2), 4)
    0.3
    """
    return classwise_reliability(
        log_probs, y, bins=bins, equal=equal, threshold=threshold, ignore_index=ignore_index
    ).ece


def _cells(probs: Tensor, hit: Tensor, bins: int, equal: str, threshold: float) -> Tensor:
    """Rows, summed probability and summed hits of one class's bins, `[3, B]`."""
    kept = probs >= threshold
    values, hits = probs[kept], hit[kept].to(torch.float64)
    if len(values) == 0:
        return probs.new_zeros(3, bins)
    bin_of = BINNED[equal](values, bins)
    sums = [torch.bincount(bin_of, weights=w, minlength=bins) for w in (torch.ones_like(values), values, hits)]
    return torch.stack(sums)
