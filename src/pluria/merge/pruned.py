"""Pruned soup: members leave the mean of all, the worst first, as long as a loss falls.

    S <- all;  for every member k, the worst first:  S <- S - {k}  where  loss(mean of S - {k}) < loss(mean of S)

It begins where the greedy soup may end, and so keeps members that only help together. Source: Dansereau et al.,
"Model soups to increase inference without increasing compute time", arXiv 2301.10092.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from pluria.core.ensemble import Ensemble
from pluria.merge.greedy import Loss, WeightsLoss, one_hot, ranking, soup


def pruned_soup(
    ensemble: Ensemble,
    loss: Loss,
    *,
    order: Sequence[int] | None = None,
    strict: bool = True,
    evaluations: int | None = None,
) -> dict[str, Tensor]:
    """The pruned soup of an ensemble by `loss`; options are those of `greedy_soup`, and an order begins with the best.

    >>> from pluria.core.ensemble import stack
    >>> three = stack([{"w": torch.tensor([value])} for value in (1.0, -1.5, 30.0)])
    >>> pruned_soup(three, lambda params: params["w"].abs().item())
    {'w': tensor([-0.2500])}
    """

    def judged(chosen: Tensor) -> float:
        return loss(soup(ensemble, chosen))

    return soup(ensemble, pruned_weights(len(ensemble), judged, order=order, strict=strict, evaluations=evaluations))


def pruned_weights(
    members: int,
    loss: WeightsLoss,
    *,
    order: Sequence[int] | None = None,
    strict: bool = True,
    evaluations: int | None = None,
) -> Tensor:
    """Which of `members` stay, float64 `[K]` of ones and zeros; `loss` judges such vectors."""
    ranked, own = ranking(members, loss, order, evaluations, more=1)
    kept = torch.ones(members, dtype=torch.float64)
    best = loss(kept)
    for member in ranked[::-1][: None if evaluations is None else evaluations - len(own) - 1]:
        trial = kept - one_hot(members, [member])
        if trial.sum() == 0:
            break
        value = loss(trial)
        if value < best or math.isnan(best) or (not strict and value == best):  # no number is better than NaN
            kept, best = trial, value
    return kept
