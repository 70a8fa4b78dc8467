"""Calibration error with as many bins of equal mass as keep accuracy rising with confidence.

    B = 1, 2, ... grows as long as the accuracies of the bins do not decrease; the last such B gives the ECE

So no number of bins has to be chosen, and on few rows there are few. Its bias is smaller than that of 15 fixed bins.
Source: Roelofs, Cain, Shlens and Mozer, AISTATS 2022.
"""

from torch import Tensor

from pluria.score.calibration import Reliability, adaptive_reliability
from pluria.score.rows import IGNORED


def sweep_reliability(log_probs: Tensor, y: Tensor, *, ignore_index: int = IGNORED) -> Reliability:
    """The diagram over that many bins; pooled log-probabilities `[N, C]`, classes `[N]`. Refused: what `ece` refuses.

    >>> import torch
    >>> p = torch.tensor([0.6, 0.7, 0.8, 0.9])
    >>> len(sweep_reliability(torch.stack([p, 1 - p], 1).log(), torch.tensor([1, 0, 1, 0])).count)
    2
    """
    found = adaptive_reliability(log_probs, y, bins=1, ignore_index=ignore_index)
    for bins in range(2, int(found.count.sum()) + 1):
        finer = adaptive_reliability(log_probs, y, bins=bins, ignore_index=ignore_index)
        accuracy = finer.accuracy[finer.count > 0]
        if bool((accuracy.diff() < 0).any()):
            break
        found = finer
    return found


def sweep_ece(log_probs: Tensor, y: Tensor, *, ignore_index: int = IGNORED) -> float:
    """The calibration error of that diagram.

    >>> import torch
    >>> p = torch.tensor([0.75, 0.75])
    >>> round(sweep_ece(torch.stack([p, 1 - p], 1).log(), torch.tensor([0, 1])), 4)
    0.25
    """
    return sweep_reliability(log_probs, y, ignore_index=ignore_index).ece
