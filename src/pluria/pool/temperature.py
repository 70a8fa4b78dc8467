"""Temperature scaling of pooled predictions: log_softmax(log p / T) with the T of least mean NLL on held-out rows.

The temperature acts on the POOLED log-probabilities, not on the members' logits before pooling, which is another
method with another optimum. In beta = 1 / T the mean NLL is convex with the derivative

    g(beta) = mean_n ( E_beta[z_n] - z_n[y_n] )        g'(beta) = mean_n Var_beta[z_n]  >= 0

so its root is found by Newton steps in log beta inside a bracket that only shrinks (a step that leaves it becomes a
bisection). Pooled regression outputs have no temperature.
Source: Guo, Pleiss, Sun and Weinberger, ICML 2017; the order pool, then scale: Ashukha et al., ICLR 2020.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from pluria.pool.rows import targets_of

# Temperatures outside are not told apart by any data in use; a fit that runs away stops here and says so.
LOWEST, HIGHEST = 1e-3, 1e3


@dataclass(frozen=True)
class Temperature:
    """A fitted temperature: calls map log-probabilities (or logits) `[..., C]` to log_softmax(. / value).

    `clamped` says that the optimum lies beyond `value`: the rows were all right, or no better than chance.
    The result has the input's shape and dtype.

    >>> Temperature(2.0)(torch.tensor([0.0, 2.0])).exp()
    tensor([0.2689, 0.7311])
    """

    value: float
    clamped: bool = False

    def __post_init__(self) -> None:
        if not (math.isfinite(self.value) and self.value > 0):
            raise ValueError(f"a temperature must be positive and finite, not {self.value}")

    def __call__(self, log_probs: Tensor) -> Tensor:
        """Scaled and normalised log-probabilities, in the shape and dtype of `log_probs` `[..., C]`."""
        return (log_probs.to(torch.float64) / self.value).log_softmax(-1).to(log_probs.dtype)


def fit_temperature(log_probs: Tensor, y: Tensor, *, ignore_index: int = -100) -> Temperature:
    """The temperature of least mean NLL of pooled `log_probs` `[N, ..., C]` (or logits) at classes `y` `[N, ...]`.

    Fit it on rows that give no figure afterwards. Rows whose target is `ignore_index` do not count. Where the NLL does
    not depend on the temperature (all classes equal in every row) the answer is 1. Deterministic.
    Refused with `ValueError`: shapes that do not fit, targets that are no class, no row left, NaN or +inf, and a target
    of probability zero, whose NLL is infinite at every temperature.
    """
    rows, targets = checked_rows(log_probs, y, ignore_index)
    low, high = -math.log(HIGHEST), -math.log(LOWEST)
    if _slope(rows, targets, 0.0) == (0.0, 0.0):
        return Temperature(1.0)
    if _slope(rows, targets, low)[0] >= 0:
        return Temperature(HIGHEST, clamped=True)
    if _slope(rows, targets, high)[0] <= 0:
        return Temperature(LOWEST, clamped=True)
    return Temperature(math.exp(-_root(rows, targets, low, high)))


def _root(rows: Tensor, targets: Tensor, low: float, high: float) -> float:
    """The u = log beta in (low, high) at which the slope of the mean NLL changes its sign."""
    u = 0.0
    for _ in range(100):
        gradient, curvature = _slope(rows, targets, u)
        low, high = (low, u) if gradient > 0 else (u, high)
        step = gradient / (curvature * math.exp(u)) if curvature > 0 else math.inf
        following = u - step if low < u - step < high else (low + high) / 2
        if abs(following - u) < 1e-12 or gradient == 0:
            break
        u = following
    return u


def _slope(rows: Tensor, targets: Tensor, u: float) -> tuple[float, float]:
    """g and g' at beta = exp(u), for rows `[M, C]` in float64 whose maximum is 0."""
    probs = (rows * math.exp(u)).softmax(-1)
    values = rows.masked_fill(probs == 0, 0.0)  # a class of probability 0 may hold -inf, and 0 * -inf is NaN
    expected = (probs * values).sum(-1)
    variance = (probs * (values - expected[:, None]).square()).sum(-1)
    chosen = rows.gather(-1, targets[:, None])[:, 0]
    return float((expected - chosen).mean()), float(variance.mean())


def checked_rows(log_probs: Tensor, y: Tensor, ignore_index: int) -> tuple[Tensor, Tensor]:
    """Rows `[M, C]` in float64, shifted to maximum 0, and their targets `[M]`, without ignored ones."""
    kept, targets = targets_of(log_probs.shape, y, ignore_index)
    rows = log_probs.reshape(-1, log_probs.shape[-1])[kept].to(torch.float64)
    if bool((rows.isnan() | (rows == torch.inf)).any()):
        raise ValueError("the log-probabilities hold NaN or +inf; a temperature needs finite rows")
    if bool((rows.gather(-1, targets[:, None]) == -torch.inf).any()):
        raise ValueError("a target has probability zero, so its NLL is infinite at every temperature")
    return rows - rows.amax(-1, keepdim=True), targets
