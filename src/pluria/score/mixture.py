"""NLL of a mixture of the members' normal laws, as it is, without taking it for a normal law.

    nll = - log sum_k w_k N(y; m_k, v_k)

`gaussian_nll` scores the normal law with the mixture's mean and variance; where members lie apart the two differ.
Source: Bishop, "Mixture density networks", Aston University 1994.
"""

import math

import torch
from torch import Tensor

from pluria.core.weights import spread_weights


def mixture_nll(means: Tensor, variances: Tensor, y: Tensor, weights: Tensor | None = None) -> Tensor:
    """NLL in nats of y `[N]` under the mixture of members' normal laws, means and variances `[K, N]`; float64 `[N]`.

    Weights are `[K]` or `[K, N]`, None: equal; a member of weight zero is not read. Refused with `ValueError`: other
    shapes, integer targets, variances of members with weight that are not above zero, weights that are negative or sum
    to zero.

    >>> mixture_nll(torch.tensor([[0.0], [2.0]]), torch.ones(2, 1), torch.tensor([1.0]))  # both at distance one
    tensor([1.4189], dtype=torch.float64)
    """
    if means.ndim != 2 or means.shape != variances.shape or means.shape[1:] != y.shape or not y.is_floating_point():
        shapes = f"{list(means.shape)}, {list(variances.shape)} and {y.dtype} {list(y.shape)}"
        raise ValueError(f"means and variances [K, N] and floating-point y [N] do not fit: {shapes}")
    spread = spread_weights(means, weights)
    if not bool((spread.sum(0) > 0).all()):
        raise ValueError("the members' weights must have a positive sum for every example")
    read = spread > 0
    if not bool((variances > 0)[read].all()):
        raise ValueError("variances must be positive")
    wide = torch.where(read, variances.to(torch.float64), 1.0)
    apart = torch.where(read, means.to(torch.float64) - y.to(torch.float64), 0.0)
    laws = -((2 * math.pi * wide).log() + apart.square() / wide) / 2
    return -((spread / spread.sum(0)).log() + laws).logsumexp(0)
