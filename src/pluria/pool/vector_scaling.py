"""Vector scaling of pooled predictions: a scale and an offset for each class, fitted by NLL on held-out rows.

    log q  =  log_softmax( a * log p + b )        a, b one number for each class

    minimise  mean_n( -log q(y_n) )  +  ridge / (2 N) ( |a - 1/T|^2 + |b|^2 )

T is the fitted temperature, so few rows leave the temperature alone. Classes that the members prefer too often, or are
sure of too soon, are put right; the order of the classes may change, and with it the error. The fit is convex.
Source: Guo, Pleiss, Sun and Weinberger, ICML 2017 (without the ridge).
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import nll_loss

from pluria.pool.rows import check_classes
from pluria.pool.smooth import check_numbers, check_ridge, smooth_minimum, vector_of
from pluria.pool.temperature import checked_rows, fit_temperature


@dataclass(frozen=True)
class VectorScaling:
    """Fitted scales and offsets: calls map log-probabilities (or logits) `[..., C]` to log-probabilities `[..., C]`.

    An impossible class stays impossible. The fields are plain data, through JSON as well.

    >>> VectorScaling((1.0, 2.0), (0.0, 0.0))(torch.tensor([0.5, 0.5]).log()).exp()  # 1/2 : 1/4
    tensor([0.6667, 0.3333])
    """

    scales: tuple[float, ...]
    offsets: tuple[float, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "scales", tuple(self.scales))
        object.__setattr__(self, "offsets", tuple(self.offsets))
        check_numbers("scales and offsets", (self.scales, self.offsets), max(1, len(self.scales)))

    def __call__(self, log_probs: Tensor) -> Tensor:
        """Scaled log-probabilities in the shape and dtype of `log_probs` `[..., C]`."""
        if log_probs.ndim < 1 or log_probs.shape[-1] != len(self.scales):
            check_classes(log_probs, len(self.scales))
        rows = log_probs.to(torch.float64).log_softmax(-1)
        return _scaled(rows, rows.new_tensor(self.scales), rows.new_tensor(self.offsets)).to(log_probs.dtype)


def fit_vector_scaling(log_probs: Tensor, y: Tensor, *, ridge: float = 1.0, ignore_index: int = -100) -> VectorScaling:
    """Scales and offsets of least mean NLL of pooled `log_probs` `[N, ..., C]` (or logits) at classes `y` `[N, ...]`.

    Fit it on rows that give no figure afterwards; it wants a dozen for each class. Rows whose target is `ignore_index`
    do not count; a class without a row keeps the temperature's scale. Deterministic.
    Refused: what `fit_temperature` refuses, and a ridge that is negative or not finite.
    """
    check_ridge(ridge)
    rows, targets = checked_rows(log_probs, y, ignore_index)
    rows = rows.log_softmax(-1)
    start = 1 / fit_temperature(rows, targets).value

    def loss(scales: Tensor, offsets: Tensor) -> Tensor:
        penalty = ridge / (2 * len(targets)) * ((scales - start).square().sum() + offsets.square().sum())
        return nll_loss(_scaled(rows, scales, offsets), targets) + penalty

    classes = rows.shape[-1]
    found = smooth_minimum((rows.new_full((classes,), start), rows.new_zeros(classes)), loss)
    return VectorScaling(*map(vector_of, found))


def _scaled(rows: Tensor, scales: Tensor, offsets: Tensor) -> Tensor:
    barred = rows == -torch.inf
    # Zero times -inf is NaN, in the value and in its slope.
    return (rows.masked_fill(barred, 0.0) * scales + offsets).masked_fill(barred, -torch.inf).log_softmax(-1)
