"""CRPS in closed form: of a normal law, and of the mixture of the members' normal laws.

    A(m, v)         m erf( m / sqrt(2 v) ) + sqrt(2 v / pi) exp( -m^2 / (2 v) )          = E|m + sqrt(v) Z|
    gaussian_crps   A(y - mean, v) - A(0, 2 v) / 2
    mixture_crps    sum_k w_k A(y - mean_k, v_k) - 1/2 sum_kj w_k w_j A(mean_k - mean_j, v_k + v_j)

Of members that give a mean and a variance each, the mixture is the plain pool of laws; a variance of zero is a member
that gives one number, so with all of them zero it is `crps`. All take floating point and give float64 `[N]`.
Sources: Gneiting, Raftery, Westveld and Goldman, Monthly Weather Review 2005; Grimit et al., QJRMS 2006 (mixtures).
"""

import math

import torch
from torch import Tensor

from pluria.core.weights import spread_weights


def gaussian_crps(mean: Tensor, variance: Tensor, y: Tensor) -> Tensor:
    """CRPS of the normal law of mean and variance `[N]` at y `[N]`, in the unit of y.

    `ValueError` for shapes that differ, integer targets and variances that are negative or NaN.

    >>> gaussian_crps(torch.tensor([0.0]), torch.tensor([1.0]), torch.tensor([0.0]))
    tensor([0.2337], dtype=torch.float64)
    """
    if mean.shape != y.shape:
        raise ValueError(f"means and y must have one shape, not {list(mean.shape)} and {list(y.shape)}")
    return mixture_crps(mean[None], variance[None], y)


def mixture_crps(means: Tensor, variances: Tensor, y: Tensor, weights: Tensor | None = None) -> Tensor:
    """CRPS of the mixture of members' normal laws, means and variances `[K, N]`, at y `[N]`; weights `[K]` or `[K, N]`.

    Time grows with K^2. A member of weight zero is not read. Refused with `ValueError`: other shapes, integer targets,
    variances that are negative or NaN, weights that are negative or sum to zero.

    >>> means = torch.tensor([[0.0], [2.0]])
    >>> mixture_crps(means, torch.zeros(2, 1), torch.tensor([1.0]))
    tensor([0.5000], dtype=torch.float64)
    """
    if means.ndim != 2 or means.shape != variances.shape or means.shape[1:] != y.shape or not y.is_floating_point():
        shapes = ", ".join(f"{list(tensor.shape)} {tensor.dtype}" for tensor in (means, variances, y))
        raise ValueError(f"means and variances [K, N] and floating point y [N] do not fit: {shapes}")
    spread = spread_weights(means, weights)
    shares = spread / spread.sum(0)
    if not bool(torch.isfinite(shares).all()):
        raise ValueError("the members' weights must have a positive sum for every example")
    m, v = (torch.where(shares > 0, tensor.to(torch.float64), 0.0) for tensor in (means, variances))
    if not bool((v >= 0).all()):
        raise ValueError("variances must not be negative or NaN")
    pairs = [(shares * shares[k] * _distance(m - m[k], v + v[k])).sum(0) for k in range(len(m))]
    return (shares * _distance(y.to(torch.float64) - m, v)).sum(0) - torch.stack(pairs).sum(0) / 2


def _distance(m: Tensor, v: Tensor) -> Tensor:
    """A(m, v) = E|m + sqrt(v) Z|, which is |m| where v = 0."""
    scale = (2 * v).sqrt()
    ratio = torch.where(v > 0, m / scale, 0.0)
    spread = m * torch.erf(ratio) + scale * (-ratio.square()).exp() / math.sqrt(math.pi)
    return torch.where(v > 0, spread, m.abs())
