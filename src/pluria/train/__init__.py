"""Many models from one training run: collectors, cycles, optimisers, losses and short loops; all end in an Ensemble."""

from pluria.train.average import EMA, SWA
from pluria.train.collector import Collector, every
from pluria.train.curve import along, barrier, curve, simplex_shares, subspace
from pluria.train.cycle import Cycle, cycles
from pluria.train.factors import batch_ensemble, lora
from pluria.train.ivon import IVON
from pluria.train.langevin import SGHMC, SGLD
from pluria.train.latephase import late_phase, scale_common
from pluria.train.loop import Run, train
from pluria.train.population import OwnPart, Part, Population, SharedPart
from pluria.train.several import chain, independent, local, star
from pluria.train.snapshot import Snapshots
from pluria.train.span import Span, cosine
from pluria.train.state import State
from pluria.train.swag import SWAG, multi_swag

__all__ = [
    "EMA",
    "IVON",
    "SGHMC",
    "SGLD",
    "SWA",
    "SWAG",
    "Collector",
    "Cycle",
    "OwnPart",
    "Part",
    "Population",
    "Run",
    "SharedPart",
    "Snapshots",
    "Span",
    "State",
    "along",
    "barrier",
    "batch_ensemble",
    "chain",
    "cosine",
    "curve",
    "cycles",
    "every",
    "independent",
    "late_phase",
    "local",
    "lora",
    "multi_swag",
    "scale_common",
    "simplex_shares",
    "star",
    "subspace",
    "train",
]
