"""Gaussian noise around one network: the control that asks whether the shape of rounding noise matters.

    w_m = w + scale sigma z_m      sigma^2 = Var of stochastic rounding, weight by weight

With one number for sigma it is the parameter ensembling by perturbation of Mehrtash et al., NeurIPS 2020.
"""

from __future__ import annotations

import torch

from pluria.core.ensemble import Ensemble
from pluria.core.family import Family
from pluria.core.gaussian import Gaussian
from pluria.core.rounded import Rounded
from pluria.numbers.key import Key
from pluria.numbers.rounding import variance


def gaussian(like: Ensemble, *, scale: float = 1.0, key: Key | int = 0) -> Ensemble:
    """Members with the mean and, times scale^2, the variance of a low-precision ensemble of one base.

    Raises ValueError where `like` has no rounded tensor, or several bases.
    """
    key = key if isinstance(key, Key) else Key(key)
    made: dict[int, Family] = {}
    for family in like.families.values():
        if isinstance(family, Rounded) and id(family) not in made:
            made[id(family)] = _matched(family, scale, key)
    if not made:
        raise ValueError("no tensor of the ensemble is rounded, so there is no variance to match")
    return like.with_families({n: made.get(id(f), f) for n, f in like.families.items()})


def isotropic(like: Ensemble, *, std: float, key: Key | int = 0) -> Ensemble:
    """Members with the same noise on every weight that `like` rounds; choose `std` by validation log-likelihood."""
    key = key if isinstance(key, Key) else Key(key)
    made: dict[int, Family] = {}
    for family in like.families.values():
        if isinstance(family, Rounded) and id(family) not in made:
            made[id(family)] = Gaussian(family.base, torch.full(tuple(family.shape), std), family.name, key)
    return like.with_families({n: made.get(id(f), f) for n, f in like.families.items()})


def _matched(family: Rounded, scale: float, key: Key) -> Gaussian:
    if len(family.bases) > 1:
        raise ValueError(f"matched noise needs one base; the ensemble rounds {len(family.bases)} in turn")
    value, grid = family.parts(0)
    return Gaussian(family.base, variance(value, grid).sqrt() * scale, family.name, key)
