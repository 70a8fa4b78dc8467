"""merge: many models into one, tensor by tensor."""

from pluria.merge.breadcrumbs import breadcrumbs
from pluria.merge.dare import dare
from pluria.merge.della import della
from pluria.merge.gossip import mix
from pluria.merge.greedy import greedy_soup, greedy_weights
from pluria.merge.leafwise import leafwise
from pluria.merge.linear import linear
from pluria.merge.magnitude import Largest, largest
from pluria.merge.order import median, trimmed
from pluria.merge.pruned import pruned_soup, pruned_weights
from pluria.merge.radin import radin_soup
from pluria.merge.rule import BLOCK, Pass, Piece, Rule, Rules
from pluria.merge.sce import sce
from pluria.merge.slerp import slerp
from pluria.merge.stock import model_stock
from pluria.merge.task import task_arithmetic
from pluria.merge.ties import ties
from pluria.merge.variance import corrected_mean
from pluria.merge.wise import wise_ft

__all__ = [
    "BLOCK",
    "Largest",
    "Pass",
    "Piece",
    "Rule",
    "Rules",
    "breadcrumbs",
    "corrected_mean",
    "dare",
    "della",
    "greedy_soup",
    "greedy_weights",
    "largest",
    "leafwise",
    "linear",
    "median",
    "mix",
    "model_stock",
    "pruned_soup",
    "pruned_weights",
    "radin_soup",
    "sce",
    "slerp",
    "task_arithmetic",
    "ties",
    "trimmed",
    "wise_ft",
]
