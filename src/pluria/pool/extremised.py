"""Extremised mean or median: the pooled probability, pushed away from the base rates by a fitted factor.

    log p  =  log_softmax( b + d (log p_pooled - b) )        b = log of the base rates

For two classes this is logit p = logit b + d (logit p_pooled - logit b). Members that know different things are each
too cautious, and their mean wants d > 1; members cut from one model share what they know, and want d near 1. So the
factor is fitted, never assumed. The median is for crowds with a few wild members. With equal base rates this is a
temperature of 1 / d on the pooled answer. Sources: Satopää et al., International Journal of Forecasting 2014; Neyman
and Roughgarden, EC 2022 (the base).
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pluria.pool.average import mean_probability
from pluria.pool.log_linear import exponent_slopes
from pluria.pool.newton import nonnegative_minimum
from pluria.pool.order import median_probability
from pluria.pool.rows import at_targets, fitting_rows
from pluria.pool.temperature import HIGHEST

CENTRES: Mapping[str, Callable[..., Tensor]] = {
    "mean_probability": mean_probability,
    "median_probability": median_probability,
}
"""What may be pushed, by name."""


@dataclass(frozen=True)
class Extremised:
    """A fitted extremised mean or median: calls map `[K, N, ..., C]` (logits or log-probabilities) to `[N, ..., C]`.

    `factor` is d; `base` holds the base rate of each class, None: equal. `clamped` says that the best factor lies
    beyond 1000. `pool` is what is pushed, `mean_probability` or `median_probability`. It takes any number of members.
    The fields are plain data: `Extremised(**dataclasses.asdict(pool))` is the same pool, through JSON as well.

    >>> Extremised(2.0)(torch.tensor([[[0.9, 0.1]], [[0.7, 0.3]]]).log()).exp()  # 0.64 : 0.04
    tensor([[0.9412, 0.0588]])
    """

    factor: float
    base: tuple[float, ...] | None = None
    clamped: bool = False
    pool: str = "mean_probability"

    def __post_init__(self) -> None:
        if not (math.isfinite(self.factor) and self.factor >= 0):
            raise ValueError(f"a factor must be finite and 0 or more, not {self.factor}")
        _check_centre(self.pool)
        if self.base is not None:
            object.__setattr__(self, "base", _rates(self.base))

    def __call__(self, log_probs: Tensor, weights: Tensor | None = None) -> Tensor:
        """Pooled log-probabilities `[N, ..., C]`; `weights` `[K]` or `[K, N]` of the members, None: equal."""
        pooled = CENTRES[self.pool](log_probs.to(torch.float64), weights)
        base = _log_base(self.base, pooled)
        # A factor of zero leaves the base rates, even where a class is impossible and 0 times -inf has no value.
        pushed = self.factor * (pooled - base) if self.factor > 0 else torch.zeros_like(pooled)
        return (base + pushed).log_softmax(-1).to(log_probs.dtype)


def fit_extremised(
    log_probs: Tensor,
    y: Tensor,
    *,
    base: Sequence[float] | None = None,
    pool: str = "mean_probability",
    ignore_index: int = -100,
) -> Extremised:
    """The factor of least mean NLL for members' `log_probs` `[K, N, ..., C]` (or logits) at classes `y` `[N, ...]`.

    `base` holds the positive base rates of the C classes, normalised here; None: equal. `pool` is what is
    pushed, `mean_probability` or `median_probability`. Fit it on rows that no member was trained on and that give no
    figure afterwards. Rows whose target is `ignore_index` do not count.
    Refused: what `fit_linear` refuses, base rates that are not C positive numbers, and a target that the median holds
    impossible.
    """
    _check_centre(pool)
    rows, targets = fitting_rows(log_probs, y, ignore_index)
    pooled = CENTRES[pool](rows)
    if not bool((at_targets(pooled[None], targets) > -torch.inf).all()):
        raise ValueError(f"{pool} holds the target of a row impossible, so no factor has a finite NLL; take the mean")
    rates = None if base is None else _rates(base)
    offset = _log_base(rates, pooled).expand_as(pooled)
    barred = pooled == -torch.inf
    evidence = (pooled - offset).masked_fill(barred, 0.0)
    slopes = exponent_slopes(evidence[None], targets, offset.masked_fill(barred, -torch.inf))
    start = torch.ones(1, dtype=torch.float64)
    # Where the NLL still falls at the highest factor, or has reached nothing, it has no minimum before it.
    if bool(slopes(start)[1] < 0) and bool(slopes(start * HIGHEST)[1] <= 0):
        return Extremised(HIGHEST, rates, clamped=True, pool=pool)
    return Extremised(float(nonnegative_minimum(start, slopes)), rates, pool=pool)


def _check_centre(pool: str) -> None:
    if pool not in CENTRES:
        raise ValueError(f"what is pushed is one of {', '.join(CENTRES)}; got {pool!r}")


def _rates(base: Sequence[float]) -> tuple[float, ...]:
    """Base rates of sum one; what sums to one already keeps its bits."""
    rates = tuple(map(float, base))
    if not all(math.isfinite(rate) and rate > 0 for rate in rates):
        raise ValueError(f"base rates must be positive and finite; got {rates}")
    total = sum(rates)
    return rates if math.isclose(total, 1.0, rel_tol=1e-12) else tuple(rate / total for rate in rates)


def _log_base(rates: tuple[float, ...] | None, pooled: Tensor) -> Tensor:
    """Log base rates `[C]` for pooled rows `[..., C]`."""
    classes = pooled.shape[-1]
    if rates is None:
        return pooled.new_full((classes,), -math.log(classes))
    if len(rates) != classes:
        raise ValueError(f"{classes} classes need as many base rates; got {len(rates)}")
    return pooled.new_tensor(rates).log()
