"""Scores: per-example statistics that add up to figures, diversity, calibration, detection, costs and intervals."""

from pluria.core.uncertainty import entropy, max_probability
from pluria.score.bias_variance import BiasVariance, bias_variance_nll, bias_variance_squared
from pluria.score.binary import BINARY_BRIER, BINARY_ERROR, BINARY_NLL, binary_brier, binary_error, binary_nll
from pluria.score.bootstrap import Interval, bootstrap_figure, bootstrap_mean, paired_bootstrap, paired_bootstrap_figure
from pluria.score.calibrated import calibrated_nll
from pluria.score.calibration import (
    ECE,
    Reliability,
    adaptive_ece,
    adaptive_reliability,
    confidence,
    ece,
    reliability,
    top_reliability,
)
from pluria.score.classwise import classwise_ece, classwise_reliability
from pluria.score.cost import Cost, Equivalent, deep_ensemble_equivalent
from pluria.score.detect import RiskCoverage, aurc, auroc, fpr_at, risk_coverage
from pluria.score.divergence import kl
from pluria.score.diversity import (
    AMBIGUITY,
    DISAGREEMENT,
    GEOMETRIC_NLL,
    MEMBER_BRIER,
    MEMBER_ERROR,
    MEMBER_NLL,
    MUTUAL_INFORMATION,
    VARIANCE,
    ambiguity,
    disagreement,
    geometric_nll,
    member_brier,
    member_error,
    member_nll,
    mutual_information,
    variance,
)
from pluria.score.extrapolate import Extrapolation, PowerLaw, extrapolate, fit_power_law
from pluria.score.isotonic import Decomposition, corp, corp_brier, corp_confidence, recalibrated
from pluria.score.joint import all_epistemic, joint, marginal
from pluria.score.members import MemberSums, member_sums
from pluria.score.mixture import mixture_nll
from pluria.score.murphy import Murphy, murphy, murphy_brier
from pluria.score.normal import gaussian_crps, mixture_crps
from pluria.score.points import Points, draw_points
from pluria.score.proper import BRIER, ERROR, NLL, brier, error, nll
from pluria.score.quantiles import (
    IntervalScore,
    below,
    coverage,
    crossing_share,
    pinball,
    present,
    quantile_crps,
    quantile_scores,
    weighted_interval_score,
)
from pluria.score.regression import CRPS, MSE, RMSE, crps, gaussian_nll, squared_error
from pluria.score.rows import flatten
from pluria.score.sweep import sweep_ece, sweep_reliability
from pluria.score.tally import Rows, Score, Tally, tally, tally_members
from pluria.score.threshold import threshold_crps

__all__ = [
    "AMBIGUITY",
    "BINARY_BRIER",
    "BINARY_ERROR",
    "BINARY_NLL",
    "BRIER",
    "CRPS",
    "DISAGREEMENT",
    "ECE",
    "ERROR",
    "GEOMETRIC_NLL",
    "MEMBER_BRIER",
    "MEMBER_ERROR",
    "MEMBER_NLL",
    "MSE",
    "MUTUAL_INFORMATION",
    "NLL",
    "RMSE",
    "VARIANCE",
    "BiasVariance",
    "Cost",
    "Decomposition",
    "Equivalent",
    "Extrapolation",
    "Interval",
    "IntervalScore",
    "MemberSums",
    "Murphy",
    "Points",
    "PowerLaw",
    "Reliability",
    "RiskCoverage",
    "Rows",
    "Score",
    "Tally",
    "adaptive_ece",
    "adaptive_reliability",
    "all_epistemic",
    "ambiguity",
    "aurc",
    "auroc",
    "below",
    "bias_variance_nll",
    "bias_variance_squared",
    "binary_brier",
    "binary_error",
    "binary_nll",
    "bootstrap_figure",
    "bootstrap_mean",
    "brier",
    "calibrated_nll",
    "classwise_ece",
    "classwise_reliability",
    "confidence",
    "corp",
    "corp_brier",
    "corp_confidence",
    "coverage",
    "crossing_share",
    "crps",
    "deep_ensemble_equivalent",
    "disagreement",
    "draw_points",
    "ece",
    "entropy",
    "error",
    "extrapolate",
    "fit_power_law",
    "flatten",
    "fpr_at",
    "gaussian_crps",
    "gaussian_nll",
    "geometric_nll",
    "joint",
    "kl",
    "marginal",
    "max_probability",
    "member_brier",
    "member_error",
    "member_nll",
    "member_sums",
    "mixture_crps",
    "mixture_nll",
    "murphy",
    "murphy_brier",
    "mutual_information",
    "nll",
    "paired_bootstrap",
    "paired_bootstrap_figure",
    "pinball",
    "present",
    "quantile_crps",
    "quantile_scores",
    "recalibrated",
    "reliability",
    "risk_coverage",
    "squared_error",
    "sweep_ece",
    "sweep_reliability",
    "tally",
    "tally_members",
    "threshold_crps",
    "top_reliability",
    "variance",
    "weighted_interval_score",
]
