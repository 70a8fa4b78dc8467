"""Members that answer with a mean and a variance: the moments of their mixture, and one factor for the variance.

    m = sum_k w_k m_k
    v = sum_k w_k v_k  +  sum_k w_k (m_k - m)^2        within the members, and between them

    scaled   v s,   s = mean_n (y_n - m_n)^2 / v_n,    the s of least Gaussian NLL

What is within is noise that every member sees; what is between is their disagreement. The last axis holds mean and
variance, `[K, N, ..., 2]`. Source: Lakshminarayanan, Pritzel and Blundell, NeurIPS 2017; for the factor, Levi et al.,
Sensors 2022.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from pluria.core.reduce import mean
from pluria.core.weights import spread_weights


def mean_gaussian(outputs: Tensor, weights: Tensor | None = None) -> Tensor:
    """Mean and variance `[N, ..., 2]` of the weighted mixture of members' `[K, N, ..., 2]`.

    The mixture itself is not normal; `mixture_nll` scores it as it is. Raises ValueError for another last axis, a
    negative variance of a member with weight, and what `mean` refuses. NaN of such a member gives NaN.

    >>> mean_gaussian(torch.tensor([[[0.0, 1.0]], [[2.0, 3.0]]]))  # 2 within and 1 between
    tensor([[1., 3.]])
    """
    wide = outputs.to(torch.float64) if outputs.is_floating_point() else outputs
    within, between = variance_parts(wide, weights)
    centre = mean(wide[..., 0], weights)
    return torch.stack([centre, within + between], dim=-1).to(outputs.dtype)


def variance_parts(outputs: Tensor, weights: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """The mean variance within members and the variance between their means, both `[N, ...]`, of `[K, N, ..., 2]`.

    Refused: what `mean_gaussian` refuses.

    >>> variance_parts(torch.tensor([[[0.0, 1.0]], [[2.0, 3.0]]]))
    (tensor([2.]), tensor([1.]))
    """
    spread = _given(outputs, weights)
    means, variances = outputs.to(torch.float64).unbind(-1)
    # A member of weight zero is not read: its NaN times zero would be NaN.
    read = (spread > 0).reshape(*spread.shape, *[1] * (means.ndim - 2))
    centre = mean(means, spread)
    apart = torch.where(read, (means - centre).square(), 0.0)
    return mean(variances, spread).to(outputs.dtype), mean(apart, spread).to(outputs.dtype)


@dataclass(frozen=True)
class VarianceScale:
    """A fitted factor: calls map predictions `[N, ..., 2]` (mean, variance) to the same, with variances times `factor`.

    >>> VarianceScale(4.0)(torch.tensor([[1.0, 0.5]]))
    tensor([[1., 2.]])
    """

    factor: float

    def __post_init__(self) -> None:
        if not (math.isfinite(self.factor) and self.factor > 0):
            raise ValueError(f"a factor of the variance must be positive and finite, not {self.factor}")

    def __call__(self, prediction: Tensor) -> Tensor:
        """Means as they are, variances scaled; in the shape and dtype of `prediction`."""
        _check_pairs(prediction)
        wide = prediction.to(torch.float64)
        return torch.stack([wide[..., 0], wide[..., 1] * self.factor], dim=-1).to(prediction.dtype)


def fit_variance_scale(prediction: Tensor, y: Tensor) -> VarianceScale:
    """The factor of least Gaussian NLL of predictions `[N, ..., 2]` at y `[N, ...]`: mean (y - m)^2 / v.

    Fit it on rows that give no figure afterwards. Places where y is NaN do not count. Refused with `ValueError`: shapes
    that do not fit, integer targets, no place left, predictions that are not finite or variances not above zero there,
    and means that meet y everywhere, for which no variance is too small.
    """
    _check_pairs(prediction)
    if prediction.shape[:-1] != y.shape or not y.is_floating_point():
        raise ValueError(f"y must be floating point {list(prediction.shape[:-1])}, not {y.dtype} {list(y.shape)}")
    kept = ~y.isnan()
    rows, observed = prediction.detach().to(torch.float64)[kept], y.to(torch.float64)[kept]
    if len(rows) == 0 or not bool(torch.isfinite(rows).all()) or not bool((rows[:, 1] > 0).all()):
        raise ValueError("finite means and variances above zero are wanted, for one place with a target at least")
    factor = float(((observed - rows[:, 0]).square() / rows[:, 1]).mean())
    if factor == 0:
        raise ValueError("the means meet the targets everywhere, so no variance is too small")
    return VarianceScale(factor)


def _check_pairs(outputs: Tensor) -> None:
    if outputs.ndim < 1 or outputs.shape[-1] != 2:
        raise ValueError(f"the last axis must hold mean and variance, 2 numbers, not {list(outputs.shape)}")


def _given(outputs: Tensor, weights: Tensor | None) -> Tensor:
    """Checked weights `[K, N]` for pairs `[K, N, ..., 2]`."""
    _check_pairs(outputs)
    if outputs.ndim < 3:
        raise ValueError(f"outputs must be [K, N, ..., 2], not {list(outputs.shape)}")
    spread = spread_weights(outputs[..., 0], weights)
    negative = (outputs[..., 1] < 0).reshape(*spread.shape, -1).any(-1)
    if bool((negative & (spread > 0)).any()):
        raise ValueError("a variance is negative; if the network gives its logarithm, take the exponential first")
    return spread
