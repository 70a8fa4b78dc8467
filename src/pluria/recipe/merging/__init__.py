"""merging: checkpoints on disk to one model on disk."""

from pluria.recipe.merging.cost import Cost
from pluria.recipe.merging.files import Merge, merge_files

__all__ = ["Cost", "Merge", "merge_files"]
