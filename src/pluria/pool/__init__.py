"""One answer out of many: a pool takes outputs `[K, N, ..., C]` and weights `[K]` or `[K, N]` to `[N, ..., C]`."""

from pluria.pool.average import mean, mean_bernoulli, mean_logit, mean_probability
from pluria.pool.extremised import Extremised, fit_extremised
from pluria.pool.fold import out_of_fold
from pluria.pool.greedy import greedy
from pluria.pool.linear import Linear, fit_linear
from pluria.pool.log_linear import LogLinear, fit_log_linear
from pluria.pool.order import median, median_probability, trimmed, trimmed_probability
from pluria.pool.running import RunningMean
from pluria.pool.temperature import Temperature, fit_temperature
from pluria.pool.vote import vote
from pluria.pool.zpe import zpe

__all__ = [
    "Extremised",
    "Linear",
    "LogLinear",
    "RunningMean",
    "Temperature",
    "fit_extremised",
    "fit_linear",
    "fit_log_linear",
    "fit_temperature",
    "greedy",
    "mean",
    "mean_bernoulli",
    "mean_logit",
    "mean_probability",
    "median",
    "median_probability",
    "out_of_fold",
    "trimmed",
    "trimmed_probability",
    "vote",
    "zpe",
]
