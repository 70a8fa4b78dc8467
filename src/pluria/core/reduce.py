"""Reductions over the member axis that act on outputs and on params alike: mean, median, trimmed mean.

    mean      sum_k w_k x_k
    median    the x with at most half of the weight on either side; between two such values, their mean
    trimmed   mean of what is left when the share `trim` of the weight is cut off at either end

All take values `[K, N, ...]` and weights `[K]` or `[K, N]` (None: equal) to `[N, ...]` in the values' dtype, place by
place; the arithmetic is float64, rounded once. Weights are normalised; a member of weight zero is not read. Refused
(`ValueError`): negative or non-finite weights, weights that sum to zero.

Trimming may cut through a member: only part of its weight is left. So a doubled weight equals a doubled member, and a
trim between two counts of members lies between their answers. `trim` 0 is the mean, towards 1/2 it becomes the median.
Source: Tukey, "The future of data analysis", Annals of Mathematical Statistics 1962.
"""

import math

import torch
from torch import Tensor

from pluria.core.weights import spread_weights
from pluria.numbers import members


def mean(values: Tensor, weights: Tensor | None = None) -> Tensor:
    """Weighted mean sum_k w_k x_k of values `[K, N, ...]`; the result is `[N, ...]`.

    >>> mean(torch.tensor([[1.0], [4.0]]), torch.tensor([2.0, 1.0]))
    tensor([2.])
    """
    spread = spread_weights(values, weights)
    total = positive_total(spread.sum(0))
    return (weighted_sum(values, spread) / _beside(total, values[0])).to(values.dtype)


def median(values: Tensor, weights: Tensor | None = None) -> Tensor:
    """Weighted median over members of values `[K, N, ...]`, place by place; the result is `[N, ...]`.

    NaN of a member with weight gives NaN. It needs all members at once and cannot be added up over blocks.

    >>> median(torch.tensor([[1.0], [2.0], [90.0]]))
    tensor([2.])
    """
    low, high = middle(*ordered(values.to(torch.float64), spread_weights(values, weights)))
    return (low / 2 + high / 2).to(values.dtype)


def trimmed(values: Tensor, weights: Tensor | None = None, *, trim: float = 0.2) -> Tensor:
    """Trimmed mean over members of values `[K, N, ...]`, place by place; the result is `[N, ...]`.

    `trim` is the share of the weight that is cut off at either end, in [0, 1/2). It needs all members at once.

    >>> trimmed(torch.tensor([[1.0], [2.0], [3.0], [90.0]]), trim=0.25)
    tensor([2.5000])
    """
    rising, shares = ordered(values.to(torch.float64), spread_weights(values, weights))
    left = remaining(shares, trim)
    return torch.where(left > 0, rising * left, 0.0).sum(0).to(values.dtype)


def weighted_sum(values: Tensor, weights: Tensor, *, dtype: torch.dtype = torch.float64) -> Tensor:
    """sum_k w_k x_k in `dtype`, member after member, for values `[K, ...]` and weights `[K]` or `[K, N]`.

    Weights may have any sign and sum. A value of weight zero is not read, so it may be NaN.
    """
    if dtype == torch.float32 and weights.ndim == 1 and members.serves(values, dtype, *members.SIXTEEN):
        return members.weighted_sum(values, weights.tolist())
    total = torch.zeros(values.shape[1:], dtype=dtype, device=values.device)
    for value, weight in zip(values, weights, strict=True):
        # Product, then sum: a fused step rounds otherwise at a run's end than inside it, and so depends on the cut.
        if weight.ndim:
            wide = _beside(weight, value)
            total += torch.where(wide != 0, value.to(dtype) * wide, 0.0)
        elif weight != 0:
            total += value.to(dtype) if weight == 1 else value.to(dtype) * float(weight)
    return total


def ordered(values: Tensor, spread: Tensor) -> tuple[Tensor, Tensor]:
    """Values in rising order over members, and their weights as shares of one; both `[K, N, ...]`."""
    shares = _beside(spread / positive_total(spread.sum(0)), values).expand_as(values)
    read = values.masked_fill(shares == 0, 0.0)
    # Sorting would hide NaN at one end, where the median never looks.
    read = torch.where(read.isnan().any(0), torch.nan, read)
    rising, order = read.sort(dim=0, stable=True)
    return rising, shares.gather(0, order)


def middle(values: Tensor, shares: Tensor) -> tuple[Tensor, Tensor]:
    """The lower and the upper median of values sorted over members, `[K, ...]`, with shares of one: both `[...]`."""
    below = shares.cumsum(0)
    # Shares that reach one half to rounding reach it: otherwise the members' order would decide.
    low = (below >= 0.5 - 1e-12).to(torch.int8).argmax(0, keepdim=True)
    high = (below > 0.5 + 1e-12).to(torch.int8).argmax(0, keepdim=True)
    return values.gather(0, low)[0], values.gather(0, high)[0]


def remaining(shares: Tensor, trim: float) -> Tensor:
    """The weights that trimming leaves of shares `[K, ...]` in rising order of the values, of sum one."""
    if not (math.isfinite(trim) and 0 <= trim < 0.5):
        raise ValueError(f"trim must lie in [0, 1/2), not {trim}")
    upper = shares.cumsum(0)
    left = upper.clamp(trim, 1 - trim) - (upper - shares).clamp(trim, 1 - trim)
    return left / left.sum(0)


def positive_total(total: Tensor) -> Tensor:
    """The sums of the members' weights `[N]`, which must be positive and finite."""
    if not bool(((total > 0) & torch.isfinite(total)).all()):
        raise ValueError("the members' weights must have a positive, finite sum for every example")
    return total


def _beside(weights: Tensor, values: Tensor) -> Tensor:
    """Weights of the first axes of `values`, with axes of one behind them."""
    return weights.reshape(*weights.shape, *[1] * (values.ndim - weights.ndim))
