"""Gaussian noise around one network: the control that asks whether the shape of rounding noise matters.

    w_m = w + scale sigma z_m      sigma^2 = Var of stochastic rounding, weight by weight

With one number for sigma it is the parameter ensembling by perturbation of Mehrtash et al., NeurIPS 2020.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from pluria.core.ensemble import Ensemble
from pluria.core.family import Family, Shared
from pluria.core.gaussian import Gaussian
from pluria.core.rounded import Rounded
from pluria.numbers.grid import Grid
from pluria.numbers.key import Key
from pluria.numbers.rounding import variance


def gaussian(like: Ensemble, *, scale: float = 1.0, key: Key | int = 0) -> Ensemble:
    """Members with the mean and, times scale^2, the variance of a low-precision ensemble of one base.

    Raises ValueError where `like` has no rounded tensor, or several bases.
    """
    return _around(like, lambda value, grid: variance(value, grid).sqrt() * scale, key)


def isotropic(like: Ensemble, *, std: float, key: Key | int = 0) -> Ensemble:
    """Members with the same noise on every weight that `like` rounds; choose `std` by validation log-likelihood.

    Raises ValueError where `like` has no rounded tensor, or several bases.
    """
    return _around(like, lambda value, grid: torch.full_like(value, std, dtype=torch.float32), key)


def _around(like: Ensemble, spread: Callable[[Tensor, Grid], Tensor], key: Key | int) -> Ensemble:
    key = key if isinstance(key, Key) else Key(key)
    made: dict[int, Family] = {}
    for family in like.families.values():
        if isinstance(family, Rounded) and id(family) not in made:
            made[id(family)] = _around_base(family, spread, key)
    if not made:
        raise ValueError("no tensor of the ensemble is rounded, so there is no noise to put in its place")
    return like.with_families({n: made.get(id(f), f) for n, f in like.families.items()})


def _around_base(family: Rounded, spread: Callable[[Tensor, Grid], Tensor], key: Key) -> Gaussian:
    if len(family.bases) > 1:
        raise ValueError(f"noise around a base needs one base; the ensemble rounds {len(family.bases)} in turn")
    value, grid = family.parts(0)
    # The base may be any member of its family, and the noise stands around member zero.
    mean = family.base if isinstance(family.base, Shared) else Shared(value)
    return Gaussian(mean, spread(value, grid), family.name, key)
