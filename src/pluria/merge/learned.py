"""Learned soup: the share of every member in every tensor is fitted on held-out rows.

    theta_j = sum_k softmax(alpha_j)_k theta_kj        alpha starts where the shares are the ensemble's weights

Source: Wortsman et al., "Model soups", ICML 2022, which also fits a temperature of the outputs: let the objective hold
it.
"""

from __future__ import annotations

import torch
from torch import Tensor

from pluria.core.ensemble import Ensemble
from pluria.merge.coordinates import Grouping, Objective, adam, combined, fit_coordinates, grouped


def learned_soup(
    ensemble: Ensemble,
    objective: Objective,
    *,
    groups: Grouping | None = None,
    steps: int = 100,
    rate: float = 0.05,
) -> dict[str, Tensor]:
    """The learned soup of an ensemble, by Adam; no steps give the mean.

    objective   params to (loss, gradient), such as `objective_of(model, loss)`
    groups      a tensor's name to its group, which shares its coefficients; None: each tensor by itself

    Every step runs the model once. K coefficients for each tensor fit noise where rows are few: take fewer groups then.
    """
    prior = ensemble.weights.log()

    def shares(raw: Tensor, _: int) -> Tensor:
        return (raw + prior).softmax(-1)

    start = torch.zeros(max(grouped(ensemble, groups).values()) + 1, len(ensemble), dtype=torch.float64)
    raw = fit_coordinates(ensemble, objective, start, shares, groups=groups, steps=steps, optimiser=adam(rate))
    return combined(ensemble, shares(raw, steps), groups=groups)
