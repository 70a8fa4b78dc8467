"""Soft merging: a gate for each member and group of tensors, which can close entirely, is fitted by gradient.

    s = sigmoid((log u - log(1 - u) + a) / t)      z = clip(s (zeta - gamma) + gamma, 0, 1)      u anew at each step
    theta_j = sum_k w_k z_gk theta_kj / sum_k w_k z_gk
    loss + penalty * sum_gk P(z_gk > 0)            P(z > 0) = sigmoid(a - t log(-gamma / zeta))

t = 2/3, gamma = -.1, zeta = 1.1. After the fit, z = clip(sigmoid(a) (zeta - gamma) + gamma, 0, 1). So a member with
wild values is shut out, not only made small. Sources: Chen et al., "Soft merging: a flexible and robust soft model
merging approach", arXiv 2309.12259; gates: Louizos, Welling and Kingma, "Learning sparse neural networks through L0
regularization", ICLR 2018.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from pluria.core.ensemble import Ensemble
from pluria.merge.coordinates import Grouping, Objective, adam, combined, fit_coordinates, grouped
from pluria.numbers.key import MERGING, Key, tensor_id
from pluria.numbers.philox import uniforms, words

GATES = "\0gates"
"""Reserved name of the random addresses, so that no tensor shares them."""

T, GAMMA, ZETA = 2 / 3, -0.1, 1.1
OPEN = 1.0
"""Where `a` starts: sigmoid(1) is .73, an open gate that still moves."""


def soft_merge(
    ensemble: Ensemble,
    objective: Objective,
    *,
    groups: Grouping | None = None,
    penalty: float = 0.0,
    steps: int = 100,
    rate: float = 0.05,
    key: Key | int = 0,
) -> dict[str, Tensor]:
    """The soft merge of an ensemble; the options are those of `soft_gates`."""
    gates = soft_gates(ensemble, objective, groups=groups, penalty=penalty, steps=steps, rate=rate, key=key)
    return combined(ensemble, _normalised(gates, ensemble.weights), groups=groups)


def soft_gates(
    ensemble: Ensemble,
    objective: Objective,
    *,
    groups: Grouping | None = None,
    penalty: float = 0.0,
    steps: int = 100,
    rate: float = 0.05,
    key: Key | int = 0,
) -> Tensor:
    """The gates z `[G, K]` in [0, 1] after `steps` of Adam, float64.

    groups    a tensor's name to its group, such as a module or `lambda name: 0`; None: each tensor by itself
    penalty   what an open gate costs
    """
    key = key if isinstance(key, Key) else Key(key)
    shape = (max(grouped(ensemble, groups).values()) + 1, len(ensemble))

    def shares(raw: Tensor, step: int) -> Tensor:
        word = words(key, tensor=tensor_id(GATES), group=step, stream=MERGING, start=0, stop=raw.numel())
        u = (uniforms(word).to(torch.float64).view(raw.shape) + 2.0**-25).clamp(max=1 - 2.0**-25)
        return _normalised(_stretched(((u.logit() + raw) / T).sigmoid()), ensemble.weights)

    def cost(raw: Tensor) -> Tensor:
        return penalty * (raw - T * math.log(-GAMMA / ZETA)).sigmoid().sum()

    start = torch.full(shape, OPEN, dtype=torch.float64)
    raw = fit_coordinates(
        ensemble, objective, start, shares, groups=groups, steps=steps, optimiser=adam(rate), penalty=cost
    )
    return _stretched(raw.sigmoid())


def _stretched(s: Tensor) -> Tensor:
    return (s * (ZETA - GAMMA) + GAMMA).clamp(0, 1)


def _normalised(gates: Tensor, weights: Tensor) -> Tensor:
    """Coefficients of gates `[G, K]`; where all of a group are shut, the weights."""
    open_ = gates * weights
    total = open_.sum(-1, keepdim=True)
    return torch.where(total > 0, open_ / torch.where(total > 0, total, 1.0), weights)
