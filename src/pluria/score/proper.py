"""Proper scores and the error of pooled class predictions.

    nll    -log p[y]          brier    sum_c (p_c - 1[c = y])^2          error    1[argmax p != y]

All take pooled log-probabilities `[N, C]` and class indices `[N]` and give one float64 value per row that is not
ignored, in order. They refuse (`ValueError`) shapes that do not fit, rows that are not normalised and targets that are
neither a class nor `ignore_index`.
Source: Gneiting and Raftery, JASA 2007. The Brier score is the multi-class sum: it is not halved, nor divided by C.
"""

import torch
from torch import Tensor

from pluria.score.rows import IGNORED, kept_rows
from pluria.score.tally import Rows, Score


def nll(log_probs: Tensor, y: Tensor, *, ignore_index: int = IGNORED) -> Tensor:
    """Negative log-likelihood in nats; infinite where the target has probability zero.

    >>> nll(torch.tensor([[0.25, 0.75]]).log(), torch.tensor([0]))
    tensor([1.3863], dtype=torch.float64)
    """
    rows, targets = kept_rows(log_probs, y, ignore_index=ignore_index)
    return -rows.gather(-1, targets[:, None])[:, 0]


def error(log_probs: Tensor, y: Tensor, *, ignore_index: int = IGNORED) -> Tensor:
    """1.0 where the most probable class is not the target; of equally probable classes the first counts.

    >>> error(torch.tensor([[0.25, 0.75], [0.5, 0.5]]).log(), torch.tensor([0, 0]))
    tensor([1., 0.], dtype=torch.float64)
    """
    rows, targets = kept_rows(log_probs, y, ignore_index=ignore_index)
    return (rows.argmax(-1) != targets).to(torch.float64)


def brier(log_probs: Tensor, y: Tensor, *, ignore_index: int = IGNORED) -> Tensor:
    """Squared distance of the probabilities from the target's corner of the simplex, between 0 and 2.

    >>> brier(torch.tensor([[0.25, 0.75]]).log(), torch.tensor([0]))
    tensor([1.1250], dtype=torch.float64)
    """
    rows, targets = kept_rows(log_probs, y, ignore_index=ignore_index)
    corner = torch.zeros_like(rows).scatter_(-1, targets[:, None], 1.0)
    return (rows.exp() - corner).square().sum(-1)


def _nll(rows: Rows) -> dict[str, Tensor]:
    return {"sum": nll(rows.pooled, rows.targets)}


def _error(rows: Rows) -> dict[str, Tensor]:
    return {"sum": error(rows.pooled, rows.targets)}


def _brier(rows: Rows) -> dict[str, Tensor]:
    return {"sum": brier(rows.pooled, rows.targets)}


NLL = Score("nll", _nll)
ERROR = Score("error", _error)
BRIER = Score("brier", _brier)
