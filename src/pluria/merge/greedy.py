"""Greedy soup: members join the mean, the best first, as long as a loss falls.

    S <- {best};  for every next member k:  S <- S + {k}  where  loss(mean of S + {k}) < loss(mean of S)

Source: Wortsman et al., "Model soups", ICML 2022. Sparse model soups accept equal losses too (`strict=False`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from pluria.core.ensemble import Ensemble
from pluria.core.params import Params
from pluria.merge.leafwise import leafwise
from pluria.merge.linear import linear

Loss = Callable[[Params], float]
"""What a model loses on held-out rows, to be small: an NLL, an error, an accuracy with its sign turned."""

WeightsLoss = Callable[[Tensor], float]
"""What the mean with weights `[K]` loses."""


def greedy_soup(
    ensemble: Ensemble,
    loss: Loss,
    *,
    order: Sequence[int] | None = None,
    strict: bool = True,
    evaluations: int | None = None,
) -> dict[str, Tensor]:
    """The greedy soup of an ensemble by `loss`, on rows that neither trained a member nor give the figures.

    order         positions to be tried, the best first; None: by each member's own loss, which takes K evaluations
    strict        take a member only where the loss falls; else also where it stays
    evaluations   most calls of `loss`; members that are not reached stay out

    The ensemble's weights count among those that are taken. Raises ValueError for a budget that does not reach the
    first trial, an order that is none, and a loss that is NaN for every member.

    >>> from pluria.core.ensemble import stack
    >>> three = stack([{"w": torch.tensor([value])} for value in (1.0, -0.5, 3.0)])
    >>> greedy_soup(three, lambda params: params["w"].abs().item())
    {'w': tensor([0.2500])}
    """
    chosen = greedy_weights(
        len(ensemble), lambda w: loss(soup(ensemble, w)), order=order, strict=strict, evaluations=evaluations
    )
    return soup(ensemble, chosen)


def soup(ensemble: Ensemble, chosen: Tensor) -> dict[str, Tensor]:
    """The mean of the members with the ensemble's weights times `chosen` `[K]`."""
    return leafwise(ensemble.reweight(ensemble.weights * chosen), linear())


def greedy_weights(
    members: int,
    loss: WeightsLoss,
    *,
    order: Sequence[int] | None = None,
    strict: bool = True,
    evaluations: int | None = None,
) -> Tensor:
    """Which of `members` are taken, float64 `[K]` of ones and zeros; `loss` judges such vectors.

    What is judged may be a soup, or the mean of outputs that are kept: then no model is run.
    """
    tried, own = ranking(members, loss, order, evaluations, more=0 if order is None else 1)
    taken = one_hot(members, tried[:1])
    best, spent = (own[tried[0]], members) if own else (loss(taken), 1)
    for member in tried[1:][: None if evaluations is None else evaluations - spent]:
        trial = taken + one_hot(members, [member])
        value = loss(trial)
        if value < best or (not strict and value == best):
            taken, best = trial, value
    return taken


def ranking(
    members: int, loss: WeightsLoss, order: Sequence[int] | None, evaluations: int | None, *, more: int
) -> tuple[list[int], list[float]]:
    """Positions, the best first, and the losses `[K]` of members alone, none where the order is given.

    Raises ValueError where the evaluations do not last for this and `more`.
    """
    needed = more + (members if order is None else 0)
    if evaluations is not None and evaluations < needed:
        raise ValueError(
            f"{needed} evaluations are needed before the first trial; got {evaluations}. Give more, or an order"
        )
    if order is not None:
        given = list(order)
        if not given or len(set(given)) < len(given) or not 0 <= min(given) <= max(given) < members:
            raise ValueError(f"an order lists positions among 0..{members - 1}, each once; got {given}")
        return given, []
    own = [loss(one_hot(members, [member])) for member in range(members)]
    if all(map(math.isnan, own)):
        raise ValueError("the loss is NaN for every member")
    return sorted(range(members), key=lambda member: worth(own[member])), own


def worth(loss: float) -> tuple[bool, float]:
    """By which losses are ranked: NaN is worse than any number."""
    return math.isnan(loss), loss


def one_hot(members: int, positions: Sequence[int]) -> Tensor:
    """Ones at these positions, float64 `[K]`."""
    made = torch.zeros(members, dtype=torch.float64)
    made[list(positions)] = 1.0
    return made
