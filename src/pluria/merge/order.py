"""Merges that a few wild members cannot move: median and trimmed mean, place by place.

    median    the value with at most half of the weight on either side; between two such values, their mean
    trimmed   mean of what is left when the share `trim` of the weight is cut off at either end

The same functions pool outputs (`pluria.pool`). Source: Tukey, "The future of data analysis", Annals of Mathematical
Statistics 1962; for merging, Yin et al., "Byzantine-robust distributed learning", ICML 2018.
"""

from __future__ import annotations

import torch

from pluria.core import reduce
from pluria.merge.rule import Rule


def median() -> Rule:
    """The rule of the weighted median over members.

    >>> import torch
    >>> from pluria.core.ensemble import stack
    >>> from pluria.merge.leafwise import leafwise
    >>> leafwise(stack([{"w": torch.tensor([value])} for value in (1.0, 2.0, 90.0)]), median())
    {'w': tensor([2.])}
    """
    return Rule(lambda piece, _: reduce.median(piece.values.to(torch.float64), piece.weights))


def trimmed(*, trim: float = 0.2) -> Rule:
    """The rule of the trimmed mean over members; `trim`, in [0, 1/2), is cut off at either end."""
    if not 0 <= trim < 0.5:
        raise ValueError(f"trim must lie in [0, 1/2), not {trim}")
    return Rule(lambda piece, _: reduce.trimmed(piece.values.to(torch.float64), piece.weights, trim=trim))
