"""merge: many models into one, tensor by tensor."""

from pluria.merge.adamerging import adamerging, surprise
from pluria.merge.adapters import adapted, adapters_of, add_adapters, extract_adapter, sum_adapters
from pluria.merge.amortised import amortised
from pluria.merge.bang import bang, contingency, logit_scales
from pluria.merge.breadcrumbs import breadcrumbs
from pluria.merge.coordinates import combined, fit_coordinates
from pluria.merge.dare import dare
from pluria.merge.della import della
from pluria.merge.evolved import evolved_soup
from pluria.merge.experts import expert_groups, expert_usage, merge_experts
from pluria.merge.fisher import fisher
from pluria.merge.gossip import mix
from pluria.merge.greedy import greedy_soup, greedy_weights
from pluria.merge.information import fisher_information
from pluria.merge.instant import instant_soup
from pluria.merge.leafwise import leafwise
from pluria.merge.learned import learned_soup
from pluria.merge.linear import linear
from pluria.merge.magnitude import Largest, largest
from pluria.merge.manifold import manifold_mixing
from pluria.merge.objective import objective_of
from pluria.merge.order import median, trimmed
from pluria.merge.pruned import pruned_soup, pruned_weights
from pluria.merge.radin import radin_soup
from pluria.merge.regmean import regmean, regmean_plus
from pluria.merge.rule import BLOCK, Pass, Piece, Rule, Rules
from pluria.merge.sce import sce
from pluria.merge.slerp import slerp
from pluria.merge.soft import soft_gates, soft_merge
from pluria.merge.sparse import sparse_soup
from pluria.merge.stock import model_stock
from pluria.merge.task import task_arithmetic
from pluria.merge.ties import ties
from pluria.merge.variance import corrected_mean
from pluria.merge.wise import wise_ft
from pluria.merge.zeroshot import entropy_weights, prior_weights, sentence_scores, tfidf_scores, top_k

__all__ = [
    "BLOCK",
    "Largest",
    "Pass",
    "Piece",
    "Rule",
    "Rules",
    "adamerging",
    "adapted",
    "adapters_of",
    "add_adapters",
    "amortised",
    "bang",
    "breadcrumbs",
    "combined",
    "contingency",
    "corrected_mean",
    "dare",
    "della",
    "entropy_weights",
    "evolved_soup",
    "expert_groups",
    "expert_usage",
    "extract_adapter",
    "fisher",
    "fisher_information",
    "fit_coordinates",
    "greedy_soup",
    "greedy_weights",
    "instant_soup",
    "largest",
    "leafwise",
    "learned_soup",
    "linear",
    "logit_scales",
    "manifold_mixing",
    "median",
    "merge_experts",
    "mix",
    "model_stock",
    "objective_of",
    "prior_weights",
    "pruned_soup",
    "pruned_weights",
    "radin_soup",
    "regmean",
    "regmean_plus",
    "sce",
    "sentence_scores",
    "slerp",
    "soft_gates",
    "soft_merge",
    "sparse_soup",
    "sum_adapters",
    "surprise",
    "task_arithmetic",
    "tfidf_scores",
    "ties",
    "top_k",
    "trimmed",
    "wise_ft",
]
