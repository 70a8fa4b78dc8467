"""One answer out of many: a pool takes outputs `[K, N, ..., C]` and weights `[K]` or `[K, N]` to `[N, ..., C]`."""

from pluria.pool.average import mean, mean_bernoulli, mean_logit, mean_probability
from pluria.pool.running import RunningMean
from pluria.pool.temperature import Temperature, fit_temperature

__all__ = [
    "RunningMean",
    "Temperature",
    "fit_temperature",
    "mean",
    "mean_bernoulli",
    "mean_logit",
    "mean_probability",
]
