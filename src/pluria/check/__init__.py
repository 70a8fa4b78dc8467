"""check: whether models can be merged, and what a merge is worth beside an ensemble."""

from pluria.check.barrier import Barrier, barrier, barrier_profile, member_losses, modules_of

__all__ = ["Barrier", "barrier", "barrier_profile", "member_losses", "modules_of"]
