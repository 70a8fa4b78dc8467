"""Instant soup: masks of cheap, short-trained copies are united, and the union prunes the network itself.

    mask_k = the density N largest |theta_k| of all N elements        merged = theta_0 where any mask_k holds, else 0

Each copy's mask is noisy; what any of them would keep is kept. The name has two published readings: this union of
masks, and the mean of the masked copies, which is `linear` of them. Take it for weight matrices only: give `leafwise` a
function of the name that gives them one rule, made once since it measures the whole model, and `wise_ft(alpha=0)`
to what is left as it is. Source: Jaiswal et al., "Instant soup: cheap pruning ensembles in a single pass can draw
lottery tickets from large models", ICML 2023.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from pluria.merge.magnitude import Largest, largest
from pluria.merge.rule import Piece, Rule
from pluria.merge.ties import check_density, kept_of


def instant_soup(*, density: float = 0.9) -> Rule:
    """The rule of the instant soup: members are the weak copies, and the base is the network that is pruned.

    density   the share of all elements that each copy keeps, in (0, 1]

    >>> from pluria.core.ensemble import stack
    >>> from pluria.merge.leafwise import leafwise
    >>> weak = stack([{"w": torch.tensor([9.0, 1.0, 1.0])}, {"w": torch.tensor([1.0, 9.0, 1.0])}])
    >>> leafwise(weak, instant_soup(density=1 / 3), base={"w": torch.tensor([5.0, 6.0, 7.0])})
    {'w': tensor([5., 6., 0.])}
    """
    check_density(density)

    def combine(piece: Piece, found: Largest) -> Tensor:
        kept = found.mask(piece, piece.values)[0] & (piece.weights > 0)[:, None]
        return torch.where(kept.any(0), piece.origin, 0.0)

    return Rule(
        combine,
        largest(lambda piece: piece.values, partial(kept_of, density)),
        needs_base=True,
        scope="model",
        between=False,
    )
