"""Task arithmetic: task vectors are added to the base that they start from.

    tau_k = theta_k - theta_0        merged = theta_0 + sum_k s_k K w_k tau_k

K w_k is one for each member of equal weight, so this is the published sum with one scale for all, or one for each
member. A negative scale forgets a task. With `normalise` it is the mean, without the K. Source: Ilharco et al.,
"Editing models with task arithmetic", ICLR 2023 (scale .3 for vision models, .4 for T5).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from pluria.core.reduce import weighted_sum
from pluria.merge.rule import Piece, Rule

Scale = float | Sequence[float]
"""One number for all members, or one for each; of any sign and sum."""


def task_arithmetic(*, scale: Scale = 0.3, normalise: bool = False) -> Rule:
    """The rule of task arithmetic; it needs a base.

    >>> from pluria.core.ensemble import stack
    >>> from pluria.merge.leafwise import leafwise
    >>> two = stack([{"w": torch.tensor([1.0, 0.0])}, {"w": torch.tensor([0.0, 2.0])}])
    >>> leafwise(two, task_arithmetic(scale=0.5), base={"w": torch.zeros(2)})
    {'w': tensor([0.5000, 1.0000])}
    """

    def combine(piece: Piece, _: Any) -> Tensor:
        mass = coefficients(piece, scale, normalise=normalise)
        return piece.origin + weighted_sum(piece.deltas, mass, dtype=piece.values.dtype)

    return Rule(combine, needs_base=True, between=False)


def coefficients(piece: Piece, scale: Scale, *, normalise: bool = False) -> Tensor:
    """What each task vector is multiplied with, float64 `[K]`; ValueError for another number of scales than members."""
    count = len(piece.weights)
    scales = torch.as_tensor(scale, dtype=torch.float64)
    if scales.ndim and scales.shape != (count,):
        raise ValueError(f"scale is one number or one for each of the {count} members; got {list(scales.shape)}")
    # A member of weight zero is not there.
    return scales * piece.weights * (1 if normalise else int((piece.weights > 0).sum()))
