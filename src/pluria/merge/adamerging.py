"""AdaMerging: scales of task vectors that make the merged network sure of its answers, fitted without labels.

    theta_j = theta_0 + sum_k c_gk tau_kj        c in [0, 1], fitted by Adam, for the tensors j of group g
    loss    = mean over unlabelled inputs of  - sum_y p(y | x) log p(y | x)

One group is the task-wise form, a group for each layer the layer-wise one. AdaMerging++ first takes from each task
vector what TIES takes: all but the `density` largest elements of the model, and those against the elected sign. Source:
Yang et al., "AdaMerging: adaptive model merging for multi-task learning", ICLR 2024.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from pluria.core.ensemble import Ensemble, stack
from pluria.core.params import Params
from pluria.merge.coordinates import Grouping, Objective, adam, combined, fit_coordinates, grouped
from pluria.merge.leafwise import leafwise
from pluria.merge.magnitude import Largest, largest
from pluria.merge.rule import Piece, Rule
from pluria.merge.signs import ballot
from pluria.merge.ties import check_density, kept_of


def adamerging(
    ensemble: Ensemble,
    objective: Objective,
    *,
    base: Params,
    groups: Grouping | None = None,
    start: float = 0.3,
    steps: int = 500,
    rate: float = 1e-3,
    density: float | None = None,
) -> dict[str, Tensor]:
    """The model with fitted scales; the ensemble's weights play no part.

    objective   params to (loss, gradient), such as `objective_of(model, lambda m: surprise(m(inputs)))`; with several
                tasks, the sum over them, each with its own inputs and head
    groups      a tensor's name to its group: `lambda name: 0` is task-wise, None each tensor by itself
    start       of every scale, in [0, 1]
    density     of AdaMerging++, the share of each task vector that stays, in (0, 1]; the source takes .2

    The inputs are a split of their own: never those that give the figures, though no label is read. A network can be
    sure and wrong: a lower loss is no promise. Raises ValueError for another `start`.
    """
    if not 0 <= start <= 1:
        raise ValueError(f"scales start in [0, 1]; got {start}")

    def scales(raw: Tensor, _: int) -> Tensor:
        return raw.clamp(0, 1)

    if density is not None:
        ensemble = stack([leafwise(ensemble, _agreeing(k, density), base=base) for k in range(len(ensemble))])
    first = torch.full((max(grouped(ensemble, groups).values()) + 1, len(ensemble)), start, dtype=torch.float64)
    raw = fit_coordinates(
        ensemble, objective, first, scales, groups=groups, base=base, steps=steps, optimiser=adam(rate)
    )
    return combined(ensemble, scales(raw, steps), groups=groups, base=base)


def _agreeing(member: int, density: float) -> Rule:
    """The rule of one member, without the small elements of its task vector and those against the elected sign."""
    check_density(density)

    def combine(piece: Piece, found: Largest) -> Tensor:
        deltas = found.trimmed(piece, piece.deltas)
        votes = ballot(deltas, torch.ones(len(deltas), dtype=torch.float64))
        own = deltas[member]
        return torch.where((own > 0) == (votes >= 0), own, 0.0) + piece.origin

    return Rule(
        combine,
        largest(lambda piece: piece.ranked, partial(kept_of, density)),
        needs_base=True,
        scope="model",
        between=False,
    )


def surprise(logits: Tensor) -> Tensor:
    """The mean entropy in nats of logits `[..., C]`, one number with a gradient.

    >>> surprise(torch.zeros(5, 4)).item() == torch.tensor(4.0).log().item()
    True
    """
    logs = logits.log_softmax(-1)
    return -(logs.exp() * logs).sum(-1).mean()
