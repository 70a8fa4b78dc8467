"""Pools that a few wild members cannot move: medians and trimmed means, of plain outputs and of probabilities.

    median        the x with at most half of the weight on either side; between two such values, their mean
    trimmed       mean of what is left when the share `trim` of the weight is cut off at either end
    of probabilities: place by place for each class, then divided by the sum over classes

A member may be cut through: only part of its weight is left. So a doubled weight equals a doubled member, and a trim
between two counts of members lies between their answers. `trim` 0 is the mean, towards 1/2 it becomes the median. Both
need all members at once and cannot be added up over blocks. Sources: Tukey, "The future of data analysis", Annals of
Mathematical Statistics 1962; for classifiers, Kittler et al., IEEE PAMI 1998.
"""

import math

import torch
from torch import Tensor

from pluria.core.weights import spread_weights


def median(outputs: Tensor, weights: Tensor | None = None) -> Tensor:
    """Weighted median over members of regression outputs `[K, N, ...]`, place by place; the result is `[N, ...]`.

    NaN of a member with weight gives NaN. Refused (`ValueError`): negative or non-finite weights, weights that sum to
    zero for an example.

    >>> median(torch.tensor([[1.0], [2.0], [90.0]]))
    tensor([2.])
    """
    low, high = middle(*_sorted(outputs.to(torch.float64), spread_weights(outputs, weights)))
    return (low / 2 + high / 2).to(outputs.dtype)


def median_probability(outputs: Tensor, weights: Tensor | None = None) -> Tensor:
    """Log of the median probability of each class, normalised, for logits or log-probabilities `[K, N, ..., C]`.

    The result is log-probabilities `[N, ..., C]`. Where the median leaves no class possible it is NaN. Refused: what
    `median` refuses, and outputs without a class axis.

    >>> median_probability(torch.tensor([[[0.9, 0.1]], [[0.8, 0.2]], [[0.0, 1.0]]]).log()).exp()
    tensor([[0.8000, 0.2000]])
    """
    low, high = middle(*_sorted(_log_probs(outputs), spread_weights(outputs, weights)))
    return torch.logaddexp(low, high).log_softmax(-1).to(outputs.dtype)


def trimmed(outputs: Tensor, weights: Tensor | None = None, *, trim: float = 0.2) -> Tensor:
    """Trimmed mean over members of regression outputs `[K, N, ...]`, place by place; the result is `[N, ...]`.

    `trim` is the share of the weight that is cut off at either end, in [0, 1/2). Refused: another `trim`, and what
    `median` refuses.

    >>> trimmed(torch.tensor([[1.0], [2.0], [3.0], [90.0]]), trim=0.25)
    tensor([2.5000])
    """
    values, shares = _sorted(outputs.to(torch.float64), spread_weights(outputs, weights))
    left = _left(shares, trim)
    return torch.where(left > 0, values * left, 0.0).sum(0).to(outputs.dtype)


def trimmed_probability(outputs: Tensor, weights: Tensor | None = None, *, trim: float = 0.2) -> Tensor:
    """Log of each class's trimmed mean probability, normalised, for logits or log-probabilities `[K, N, ..., C]`.

    The result is log-probabilities `[N, ..., C]`. Where trimming leaves no class possible it is NaN. Refused: what
    `trimmed` refuses, and outputs without a class axis.

    >>> trimmed_probability(torch.tensor([[[0.9, 0.1]], [[0.8, 0.2]], [[0.0, 1.0]]]).log(), trim=0.3334).exp()
    tensor([[0.8000, 0.2000]])
    """
    values, shares = _sorted(_log_probs(outputs), spread_weights(outputs, weights))
    return (values + _left(shares, trim).log()).logsumexp(0).log_softmax(-1).to(outputs.dtype)


def _log_probs(outputs: Tensor) -> Tensor:
    if outputs.ndim < 3:
        raise ValueError(f"logits must be [K, N, ..., C], not {list(outputs.shape)}")
    return outputs.to(torch.float64).log_softmax(-1)


def _sorted(values: Tensor, spread: Tensor) -> tuple[Tensor, Tensor]:
    """Values in rising order over members, and their weights as shares of one; both `[K, N, ...]`."""
    total = spread.sum(0)
    if not bool((total > 0).all()):
        raise ValueError("the members' weights must have a positive sum for every example")
    shares = (spread / total).reshape(*spread.shape, *[1] * (values.ndim - 2)).expand_as(values)
    read = values.masked_fill(shares == 0, 0.0)
    # Sorting would hide NaN at one end, where the median never looks.
    read = torch.where(read.isnan().any(0), torch.nan, read)
    ordered, order = read.sort(dim=0, stable=True)
    return ordered, shares.gather(0, order)


def middle(values: Tensor, shares: Tensor) -> tuple[Tensor, Tensor]:
    """The lower and the upper median of values sorted over members, `[K, ...]`, with shares of one: both `[...]`."""
    below = shares.cumsum(0)
    # Shares that reach one half to rounding reach it: otherwise the members' order would decide.
    low = (below >= 0.5 - 1e-12).to(torch.int8).argmax(0, keepdim=True)
    high = (below > 0.5 + 1e-12).to(torch.int8).argmax(0, keepdim=True)
    return values.gather(0, low)[0], values.gather(0, high)[0]


def _left(shares: Tensor, trim: float) -> Tensor:
    """The weights that trimming leaves, of sum one."""
    if not (math.isfinite(trim) and 0 <= trim < 0.5):
        raise ValueError(f"trim must lie in [0, 1/2), not {trim}")
    upper = shares.cumsum(0)
    left = upper.clamp(trim, 1 - trim) - (upper - shares).clamp(trim, 1 - trim)
    return left / left.sum(0)
