"""Model breadcrumbs: of every task vector the very largest elements are dropped, and the small ones.

    of each tensor's |tau_k| in falling order, the first gamma n are dropped, the next density n stay, the rest is
    dropped merged = theta_0 + sum_k s_k K w_k m_k tau_k

The largest are taken for outliers. The paper names the ends by quantiles (beta .85 and gamma .993 are a density of .143
and a gamma of .007 here), other tools as here; the masks are the same. Every tensor keeps one element at least. With
`elect` signs are elected as in TIES, in place of the sum. Source: Davari and Belilovsky, "Model breadcrumbs: scaling
multi-task model merging with sparse masks", ECCV 2024.
"""

from __future__ import annotations

import torch
from torch import Tensor

from pluria.merge.dare import summed
from pluria.merge.magnitude import Largest, largest
from pluria.merge.rule import Piece, Rule
from pluria.merge.task import Scale
from pluria.merge.ties import Density, densities, kept_of


def breadcrumbs(
    *, density: Density = 0.14, gamma: float = 0.01, elect: bool = False, scale: Scale = 0.3, divided: bool = True
) -> Rule:
    """The rule of breadcrumbs; it needs a base.

    density   the share of each tensor that stays, for all members or for each
    gamma     the share of the largest that is dropped, as far as the density leaves something to be dropped
    scale     as in `dare`, and so is `divided`

    Raises ValueError for shares that are none.
    """
    held, members = densities(density)
    if not 0 <= gamma <= 1:
        raise ValueError(f"gamma lies in [0, 1]; got {gamma}")

    def counts(count: int) -> Tensor:
        kept = kept_of(held, count)
        top = torch.tensor([[int(gamma * count + 1e-9)]]).clamp(max=count - kept)
        return torch.cat([top, top + kept])

    def combine(piece: Piece, found: Largest) -> Tensor:
        deltas = piece.deltas
        outliers, above = found.mask(piece, deltas)
        return piece.origin + summed(piece, deltas.mul_(above & ~outliers), scale, elect=elect, divided=divided)

    return Rule(combine, largest(lambda piece: piece.ranked, counts), needs_base=True, members=members, between=False)
