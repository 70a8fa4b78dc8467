"""Many models from one training run: collectors, optimisers, expansions, short loops; all end in an Ensemble."""

from pluria.train.average import EMA, SWA
from pluria.train.collector import Collector, every
from pluria.train.curve import along, barrier, curve, simplex_shares, subspace
from pluria.train.cycle import Cycle, cycles
from pluria.train.diagnose import Diagnosis, cka, connectivity, diagnose, sharpness
from pluria.train.factors import batch_ensemble, lora
from pluria.train.fresh import restarted
from pluria.train.ivon import IVON
from pluria.train.langevin import SGHMC, SGLD
from pluria.train.latephase import late_phase, scale_common
from pluria.train.loop import Run, train
from pluria.train.masks import channel_masks, disjoint_masks, paired_masks
from pluria.train.objective import Decomposition, decompose, distillation_loss, diversity_loss, ens_loss, loss_slopes
from pluria.train.packed import packed_ensemble
from pluria.train.permutation import exact_share, networks_needed
from pluria.train.population import OwnPart, Part, Population, SharedPart, together
from pluria.train.repulsive import repel, repulsive
from pluria.train.residual import dropped, expansion, residual
from pluria.train.several import chain, independent, local, star
from pluria.train.snapshot import Snapshots
from pluria.train.span import Span, cosine
from pluria.train.sparse import SparseTraining, erk_densities
from pluria.train.state import State
from pluria.train.subnetworks import claimed_masks, masksembles, prune_and_tune, subnetworks
from pluria.train.swag import SWAG, multi_swag
from pluria.train.tangent import Tangent, compose

__all__ = [
    "EMA",
    "IVON",
    "SGHMC",
    "SGLD",
    "SWA",
    "SWAG",
    "Collector",
    "Cycle",
    "Decomposition",
    "Diagnosis",
    "OwnPart",
    "Part",
    "Population",
    "Run",
    "SharedPart",
    "Snapshots",
    "Span",
    "SparseTraining",
    "State",
    "Tangent",
    "along",
    "barrier",
    "batch_ensemble",
    "chain",
    "channel_masks",
    "cka",
    "claimed_masks",
    "compose",
    "connectivity",
    "cosine",
    "curve",
    "cycles",
    "decompose",
    "diagnose",
    "disjoint_masks",
    "distillation_loss",
    "diversity_loss",
    "dropped",
    "ens_loss",
    "erk_densities",
    "every",
    "exact_share",
    "expansion",
    "independent",
    "late_phase",
    "local",
    "lora",
    "loss_slopes",
    "masksembles",
    "multi_swag",
    "networks_needed",
    "packed_ensemble",
    "paired_masks",
    "prune_and_tune",
    "repel",
    "repulsive",
    "residual",
    "restarted",
    "scale_common",
    "sharpness",
    "simplex_shares",
    "star",
    "subnetworks",
    "subspace",
    "together",
    "train",
]
