"""Proper scores of multi-label predictions: each label is a Bernoulli trial of its own.

    binary_nll      mean_l -log p_l[y_l]
    binary_brier    mean_l (p_l - y_l)^2
    binary_error    mean_l 1[(z_l > 0) != y_l]

All take pooled logits `[N, L]` (or `[N]`) and targets of the same shape that are 0 or 1, and give one float64 value
per example. They refuse (`ValueError`) other shapes and other targets.
"""

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from pluria.score.tally import Rows, Score


def binary_nll(logits: Tensor, y: Tensor) -> Tensor:
    """Negative log-likelihood in nats, the mean over an example's labels.

    >>> binary_nll(torch.tensor([[0.75, 0.5]]).logit(), torch.tensor([[1, 0]]))
    tensor([0.4904], dtype=torch.float64)
    """
    z, truth = _checked(logits, y)
    # Not softplus: its default threshold replaces log(1 + e^z) by z from 20 on, which float64 can tell apart.
    return -logsigmoid(torch.where(truth > 0, z, -z)).mean(-1)


def binary_brier(logits: Tensor, y: Tensor) -> Tensor:
    """Squared distance of the probability of 1 from the target, the mean over an example's labels.

    >>> binary_brier(torch.tensor([[0.75, 0.5]]).logit(), torch.tensor([[1, 0]]))
    tensor([0.1562], dtype=torch.float64)
    """
    z, truth = _checked(logits, y)
    return (z.sigmoid() - truth).square().mean(-1)


def binary_error(logits: Tensor, y: Tensor) -> Tensor:
    """Share of an example's labels on the wrong side of probability one half; exactly one half says 0.

    >>> binary_error(torch.tensor([[2.0, 0.0]]), torch.tensor([[0, 1]]))
    tensor([1.], dtype=torch.float64)
    """
    z, truth = _checked(logits, y)
    return ((z > 0) != (truth > 0)).to(torch.float64).mean(-1)


def _checked(logits: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    if logits.shape != y.shape or logits.ndim not in (1, 2):
        raise ValueError(f"logits and y must both be [N, L] or [N], not {list(logits.shape)} and {list(y.shape)}")
    bad = ((y != 0) & (y != 1)).nonzero()
    if len(bad):
        index = tuple(bad[0].tolist())
        raise ValueError(f"target {y[index].item()} at index {index} is neither 0 nor 1")
    width = (len(y), -1) if y.numel() else (len(y), 1)
    return logits.to(torch.float64).reshape(width), y.to(torch.float64).reshape(width)


def _binary_nll(rows: Rows) -> dict[str, Tensor]:
    return {"sum": binary_nll(rows.pooled, rows.targets)}


def _binary_brier(rows: Rows) -> dict[str, Tensor]:
    return {"sum": binary_brier(rows.pooled, rows.targets)}


def _binary_error(rows: Rows) -> dict[str, Tensor]:
    return {"sum": binary_error(rows.pooled, rows.targets)}


BINARY_NLL = Score("binary_nll", _binary_nll)
BINARY_BRIER = Score("binary_brier", _binary_brier)
BINARY_ERROR = Score("binary_error", _binary_error)
