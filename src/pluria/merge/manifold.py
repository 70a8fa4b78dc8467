"""Manifold mixing: a greedy soup in which every part of the network has its own share, fitted by gradient.

    for the next member k:    A'_j = lambda_g A_j + (1 - lambda_g) theta_kj        A <- A' where the loss falls

lambda starts at the weight of those that joined over theirs and the next one's, m / (m + 1) for m members of equal
weight. So without steps it is the greedy soup. The source searches lambda by hundreds of evaluations; here the gradient
finds it in a few steps. Source: Fassold, "The manifold mixing model soups", arXiv 2309.05103.
"""

from __future__ import annotations

from torch import Tensor

from pluria.core.ensemble import Ensemble
from pluria.merge.coordinates import Grouping, Objective, adam, combined, fit_coordinates, grouped
from pluria.merge.greedy import Loss, one_hot, ranking


def manifold_mixing(
    ensemble: Ensemble,
    loss: Loss,
    objective: Objective,
    *,
    groups: Grouping | None = None,
    steps: int = 10,
    rate: float = 0.1,
) -> dict[str, Tensor]:
    """The manifold mixing soup of an ensemble.

    loss        what decides whether a member joins, as in `greedy_soup`
    objective   params to (loss, gradient), for the shares, as in `learned_soup`
    groups      a tensor's name to its part of the network; None: each tensor by itself
    steps       of Adam, for every member that is tried

    It takes 2 K - 1 evaluations of the loss and steps (K - 1) of the objective.
    """
    count = max(grouped(ensemble, groups).values()) + 1

    def judged(coordinates: Tensor) -> float:
        return loss(combined(ensemble, coordinates, groups=groups))

    order, own = ranking(len(ensemble), lambda w: judged(w.expand(count, -1)), None, None, more=0)
    mixed, best, joined = one_hot(len(ensemble), order[:1]).expand(count, -1), own[order[0]], ensemble.weights[order[0]]
    for member in order[1:]:
        start = (joined / (joined + ensemble.weights[member])).expand(count, 1).logit()
        toward = one_hot(len(ensemble), [member])

        def shares(raw: Tensor, _: int, mixed: Tensor = mixed, toward: Tensor = toward) -> Tensor:
            return raw.sigmoid() * mixed + (1 - raw.sigmoid()) * toward

        raw = fit_coordinates(ensemble, objective, start, shares, groups=groups, steps=steps, optimiser=adam(rate))
        trial = shares(raw, steps)
        if (value := judged(trial)) < best:
            mixed, best, joined = trial, value, joined + ensemble.weights[member]
    return combined(ensemble, mixed, groups=groups)
