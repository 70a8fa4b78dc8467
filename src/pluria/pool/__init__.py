"""One answer out of many: a pool takes outputs `[K, N, ..., C]` and weights `[K]` or `[K, N]` to `[N, ..., C]`."""

from pluria.core.reduce import mean, median, trimmed
from pluria.pool.apart import Apart, apart
from pluria.pool.average import mean_bernoulli, mean_logit, mean_probability
from pluria.pool.cascade import Cascade, Spent
from pluria.pool.cascade_fit import fit_cascade
from pluria.pool.chain import Chain
from pluria.pool.conformal import Conformal, fit_conformal
from pluria.pool.extremised import Extremised, fit_extremised
from pluria.pool.fold import out_of_fold
from pluria.pool.fusion import Fusion, fit_fusion
from pluria.pool.gate import Gate, fit_gate
from pluria.pool.gaussian import VarianceScale, fit_variance_scale, mean_gaussian, variance_parts
from pluria.pool.greedy import greedy
from pluria.pool.kinds import check_pool, fitted_for, from_dict, to_dict
from pluria.pool.labels import LabelTemperatures, fit_label_temperatures
from pluria.pool.linear import Linear, fit_linear
from pluria.pool.log_linear import LogLinear, fit_log_linear
from pluria.pool.member_temperature import MemberTemperatures, fit_member_temperatures
from pluria.pool.order import median_probability, trimmed_probability
from pluria.pool.quantile_weights import QuantileWeights, fit_quantile_weights
from pluria.pool.quantiles import isotonic_quantiles, mean_quantiles, median_quantiles, sort_quantiles
from pluria.pool.running import RunningMean
from pluria.pool.sets import PredictionSets, fit_prediction_sets
from pluria.pool.temperature import Temperature, fit_temperature
from pluria.pool.vector_scaling import VectorScaling, fit_vector_scaling
from pluria.pool.vote import vote
from pluria.pool.zpe import zpe

__all__ = [
    "Apart",
    "Cascade",
    "Chain",
    "Conformal",
    "Extremised",
    "Fusion",
    "Gate",
    "LabelTemperatures",
    "Linear",
    "LogLinear",
    "MemberTemperatures",
    "PredictionSets",
    "QuantileWeights",
    "RunningMean",
    "Spent",
    "Temperature",
    "VarianceScale",
    "VectorScaling",
    "apart",
    "check_pool",
    "fit_cascade",
    "fit_conformal",
    "fit_extremised",
    "fit_fusion",
    "fit_gate",
    "fit_label_temperatures",
    "fit_linear",
    "fit_log_linear",
    "fit_member_temperatures",
    "fit_prediction_sets",
    "fit_quantile_weights",
    "fit_temperature",
    "fit_variance_scale",
    "fit_vector_scaling",
    "fitted_for",
    "from_dict",
    "greedy",
    "isotonic_quantiles",
    "mean",
    "mean_bernoulli",
    "mean_gaussian",
    "mean_logit",
    "mean_probability",
    "mean_quantiles",
    "median",
    "median_probability",
    "median_quantiles",
    "out_of_fold",
    "sort_quantiles",
    "to_dict",
    "trimmed",
    "trimmed_probability",
    "variance_parts",
    "vote",
    "zpe",
]
