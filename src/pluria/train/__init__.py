"""Many models from one training run: collectors, cycles, optimisers, losses and short loops; all end in an Ensemble."""

from pluria.train.average import EMA, SWA
from pluria.train.collector import Collector, every
from pluria.train.cycle import Cycle, cycles
from pluria.train.ivon import IVON
from pluria.train.langevin import SGHMC, SGLD
from pluria.train.loop import Run, train
from pluria.train.several import chain, independent, local, star
from pluria.train.snapshot import Snapshots
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
    "Run",
    "Snapshots",
    "State",
    "chain",
    "cycles",
    "every",
    "independent",
    "local",
    "multi_swag",
    "star",
    "train",
]
