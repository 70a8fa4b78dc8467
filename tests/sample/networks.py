"""Small networks for the samplers' tests."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from pluria.core.ensemble import Ensemble
from pluria.core.family import block
from pluria.core.params import params_of
from pluria.core.rounded import Rounded


def small(seed: int = 0) -> nn.Sequential:
    """Two convolutions with batch norms between, a linear layer; 4 classes from images [N, 3, 6, 6]."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(
            nn.Conv2d(3, 4, 3),
            nn.BatchNorm2d(4),
            nn.ReLU(),
            nn.Conv2d(4, 6, 3),
            nn.Flatten(),
            nn.Linear(24, 4),
        )


ROUNDED = ("0.weight", "3.weight", "5.weight")
"""What low precision rounds of it by default."""


def params(seed: int = 0) -> dict[str, Tensor]:
    """The tensors of one such network."""
    return params_of(small(seed))


def uniform(*shape: int, seed: int = 0) -> Tensor:
    """Weights in -1..1, none of them so close to the grid that it hardly ever moves."""
    return 2 * torch.rand(shape, generator=torch.Generator().manual_seed(seed)) - 1


MATRIX = {"weight": uniform(6, 32)}


def rows(ensemble: Ensemble, name: str = "weight") -> Tensor:
    return block(ensemble.families[name], ensemble.members).double()


def family(ensemble: Ensemble, name: str = "weight") -> Rounded:
    found = ensemble.families[name]
    assert isinstance(found, Rounded)
    return found


def differ(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> list[str]:
    return [name for name in one if not torch.equal(one[name], other[name])]
