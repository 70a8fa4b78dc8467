"""merging: checkpoints on disk to one model on disk."""

from pluria.recipe.merging.cost import Cost
from pluria.recipe.merging.files import merge_files
from pluria.recipe.merging.spec import Merge

__all__ = ["Cost", "Merge", "merge_files"]
