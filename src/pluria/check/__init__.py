"""check: whether models can be merged, and what a merge is worth beside an ensemble."""

from pluria.check.barrier import Barrier, barrier, barrier_profile, member_losses, modules_of
from pluria.check.between import Between, TensorRow
from pluria.check.gap import Choice, Terms, soup_gap
from pluria.check.measured import Measured
from pluria.check.verdict import Check, check

__all__ = [
    "Barrier",
    "Between",
    "Check",
    "Choice",
    "Measured",
    "TensorRow",
    "Terms",
    "barrier",
    "barrier_profile",
    "check",
    "member_losses",
    "modules_of",
    "soup_gap",
]
