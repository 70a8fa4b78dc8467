"""Scores of regression: squared error, Gaussian NLL, and the CRPS of an ensemble.

    crps         sum_k w_k |x_k - y| - 1/2 sum_kj w_k w_j |x_k - x_j|
    crps, fair   the second sum divided by 1 - sum_k w_k^2 (K (K - 1) pairs instead of K^2 where weights are equal)

The plain form scores the K members as they are; the fair form estimates the score of the law they are drawn from, free
of the bias of a finite K. Targets are floating point. All give one float64 value per example.
Sources: Gneiting and Raftery, JASA 2007; Ferro, QJRMS 2014 (fair scores).
"""

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from pluria.core.weights import spread_weights
from pluria.score.tally import Rows, Score


def squared_error(prediction: Tensor, y: Tensor) -> Tensor:
    """Squared error of predictions `[N]` or `[N, D]`, the mean over D. `ValueError` for other shapes.

    >>> squared_error(torch.tensor([1.0, 2.0]), torch.tensor([3.0, 2.0]))
    tensor([4., 0.], dtype=torch.float64)
    """
    _check_same_shape(prediction, y)
    difference = prediction.to(torch.float64) - y.to(torch.float64)
    return difference.square().reshape(len(y), math.prod(y.shape[1:])).mean(-1)


def gaussian_nll(mean: Tensor, variance: Tensor, y: Tensor) -> Tensor:
    """NLL in nats of y `[N]` under normal laws: (log(2 pi v) + (y - m)^2 / v) / 2.

    `ValueError` for shapes that differ and for variances that are not positive.

    >>> gaussian_nll(torch.tensor([0.0]), torch.tensor([1.0]), torch.tensor([1.0]))
    tensor([1.4189], dtype=torch.float64)
    """
    _check_same_shape(mean, y)
    _check_same_shape(variance, y)
    if not bool((variance > 0).all()):
        raise ValueError("variances must be positive")
    spread = variance.to(torch.float64)
    return ((2 * math.pi * spread).log() + (y.to(torch.float64) - mean.to(torch.float64)).square() / spread) / 2


def crps(outputs: Tensor, y: Tensor, weights: Tensor | None = None, *, fair: bool = False) -> Tensor:
    """Continuous ranked probability score of members' outputs `[K, N]` at y `[N]`, weights `[K]` or `[K, N]`.

    Refused with `ValueError`: other shapes, weights that are negative or sum to zero, and the fair form where one
    member has all the weight.

    >>> crps(torch.tensor([[0.0], [2.0]]), torch.tensor([1.0])), crps(
    ...     torch.tensor([[0.0], [2.0]]), torch.tensor([1.0]), fair=True
    ... )
    (tensor([0.5000], dtype=torch.float64), tensor([0.], dtype=torch.float64))
    """
    if outputs.ndim != 2 or outputs.shape[1:] != y.shape or not outputs.is_floating_point():
        raise ValueError(f"outputs [K, N] and y [N] do not fit: {list(outputs.shape)} and {list(y.shape)}")
    spread = spread_weights(outputs, weights)
    shares = spread / spread.sum(0)
    if not bool(torch.isfinite(shares).all()) or outputs.shape[0] == 0:
        raise ValueError("the members' weights must have a positive sum for every example")
    differences = torch.where(shares > 0, outputs.to(torch.float64) - y.to(torch.float64), 0.0)
    pairs = _mean_pair_distance(differences, shares)
    if fair:
        distinct = 1 - shares.square().sum(0)
        if not bool((distinct > 1e-12).all()):
            raise ValueError("the fair form needs two members of positive weight for every example")
        pairs = pairs / distinct
    return (shares * differences.abs()).sum(0) - pairs


def _mean_pair_distance(values: Tensor, shares: Tensor) -> Tensor:
    """sum_{k<j} w_k w_j |x_k - x_j| over the members, from the gaps of the sorted values: no differences of sums."""
    ordered, order = values.sort(0)
    below = shares.gather(0, order).cumsum(0)[:-1]
    return (ordered.diff(dim=0) * below * (1 - below)).sum(0)


def _check_same_shape(prediction: Tensor, y: Tensor) -> None:
    if prediction.shape != y.shape:
        raise ValueError(f"predictions and y must have one shape, not {list(prediction.shape)} and {list(y.shape)}")
    if not y.is_floating_point():
        raise ValueError(f"regression targets must be floating point, not {y.dtype}")


def _squared_error(rows: Rows) -> dict[str, Tensor]:
    return {"sum": squared_error(rows.pooled, rows.targets)}


def _root_of_mean(sums: Mapping[str, Tensor], count: int) -> float:
    return math.sqrt(float(sums["sum"]) / count)


def _crps(rows: Rows) -> dict[str, Tensor]:
    if rows.outputs is None:
        raise ValueError("the CRPS needs the members' outputs [K, N]: pass outputs to tally")
    return {"sum": crps(rows.outputs, rows.targets, rows.weights)}


MSE = Score("mse", _squared_error)
RMSE = Score("rmse", _squared_error, _root_of_mean)
CRPS = Score("crps", _crps)
