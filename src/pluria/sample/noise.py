"""What was rounded, and with what noise: one row for each rounded tensor.

noise    sqrt(sum Var) / |w|   expected relative error of a stochastic member     nearest  |round(w) - w| / |w|
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from pluria.core.ensemble import Ensemble
from pluria.core.family import Family, Joined
from pluria.core.rounded import Rounded
from pluria.numbers.rounding import clipped, round_nearest, variance


@dataclass(frozen=True)
class LayerNoise:
    """Rounding of one tensor: how many weights, and relative errors (root sum of squares) against its own norm."""

    name: str
    shape: tuple[int, ...]
    format: str
    granularity: str
    noise: float
    nearest: float
    clipped: float


def noise(ensemble: Ensemble) -> list[LayerNoise]:
    """One row for each rounded tensor of a low-precision ensemble, of its first base; of a union, its first part."""
    found = (_rounded(family) for family in ensemble.families.values())
    rounded = {id(family): family for family in found if family is not None}
    return [_row(family) for family in rounded.values()]


def left_alone(ensemble: Ensemble) -> list[str]:
    """Names of the tensors that are not rounded."""
    return [name for name, family in ensemble.families.items() if _rounded(family) is None]


def _rounded(family: Family) -> Rounded | None:
    """The rounded family itself, or the first in a union."""
    if isinstance(family, Joined):
        return next(filter(None, map(_rounded, family.parts)), None)
    return family if isinstance(family, Rounded) else None


def _row(family: Rounded) -> LayerNoise:
    value, grid = family.parts(0)
    norm = float(value.to(torch.float64).norm()) or 1.0
    closest = round_nearest(value, grid, torch.empty(value.shape, dtype=torch.float32, device=value.device))
    return LayerNoise(
        family.name,
        tuple(family.shape),
        family.format.name,
        str(family.granularity),
        float(variance(value, grid).to(torch.float64).sum().sqrt()) / norm if family.coupling else 0.0,
        float((closest.to(torch.float64) - value.to(torch.float64)).norm()) / norm,
        clipped(value, grid) / max(value.numel(), 1),
    )
