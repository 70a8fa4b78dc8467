"""WiSE-FT: between a zero-shot model and its fine-tune, so that what was robust stays so.

    merged = (1 - alpha) theta_zero_shot + alpha theta_fine_tuned

Alpha one half needs no tuning. The whole curve is an ensemble, `pluria.path([zero_shot, fine_tuned], steps=11)`, whose
members are run like any others. Source: Wortsman et al., "Robust fine-tuning of zero-shot models", CVPR 2022.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from pluria.core.reduce import weighted_sum
from pluria.merge.rule import Piece, Rule


def wise_ft(*, alpha: float = 0.5) -> Rule:
    """The rule of WiSE-FT for a fine-tune as the member and the zero-shot model as the base.

    `alpha` 0 gives the base bit for bit, 1 the member; of several members it is their mean that is drawn to the base.

    >>> from pluria.core.ensemble import single
    >>> from pluria.merge.leafwise import leafwise
    >>> leafwise(single({"w": torch.ones(2)}), wise_ft(alpha=0.25), base={"w": torch.zeros(2)})
    {'w': tensor([0.2500, 0.2500])}
    """
    if not 0 <= alpha <= 1:
        raise ValueError(f"alpha lies in [0, 1]; got {alpha}")
    shares = torch.tensor([1 - alpha, alpha], dtype=torch.float64)

    def combine(piece: Piece, _: Any) -> Tensor:
        return weighted_sum(torch.stack([piece.origin, weighted_sum(piece.values, piece.weights)]), shares)

    return Rule(combine, needs_base=True)
