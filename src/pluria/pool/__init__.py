"""One answer out of many: a pool takes outputs `[K, N, ..., C]` and weights `[K]` or `[K, N]` to `[N, ..., C]`."""

from pluria.pool.average import mean, mean_bernoulli, mean_logit, mean_probability
from pluria.pool.conformal import Conformal, fit_conformal
from pluria.pool.extremised import Extremised, fit_extremised
from pluria.pool.fold import out_of_fold
from pluria.pool.greedy import greedy
from pluria.pool.linear import Linear, fit_linear
from pluria.pool.log_linear import LogLinear, fit_log_linear
from pluria.pool.order import median, median_probability, trimmed, trimmed_probability
from pluria.pool.quantile_weights import QuantileWeights, fit_quantile_weights
from pluria.pool.quantiles import isotonic_quantiles, mean_quantiles, median_quantiles, sort_quantiles
from pluria.pool.running import RunningMean
from pluria.pool.temperature import Temperature, fit_temperature
from pluria.pool.vote import vote
from pluria.pool.zpe import zpe

__all__ = [
    "Conformal",
    "Extremised",
    "Linear",
    "LogLinear",
    "QuantileWeights",
    "RunningMean",
    "Temperature",
    "fit_conformal",
    "fit_extremised",
    "fit_linear",
    "fit_log_linear",
    "fit_quantile_weights",
    "fit_temperature",
    "greedy",
    "isotonic_quantiles",
    "mean",
    "mean_bernoulli",
    "mean_logit",
    "mean_probability",
    "mean_quantiles",
    "median",
    "median_probability",
    "median_quantiles",
    "out_of_fold",
    "sort_quantiles",
    "trimmed",
    "trimmed_probability",
    "vote",
    "zpe",
]
