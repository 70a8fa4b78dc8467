"""The best ensemble under budgets of memory, inference and forwards, found on the calibration rows alone."""

from pluria.search.run import search
from pluria.search.spec import Budget, read_search

__all__ = ["Budget", "read_search", "search"]
