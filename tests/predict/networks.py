"""Small networks and batches for the tests of prediction."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def convolutional() -> nn.Sequential:
    """Images [N, 3, 6, 6] -> 4 classes, with batch norms whose statistics are not trivial."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = nn.Sequential(
            nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.Flatten(), nn.Linear(32, 4)
        )
    norm = net[1]
    norm.running_mean.copy_(0.1 * draw(8))
    norm.running_var.copy_(0.5 + draw(8, seed=1).square())
    return net


def images(count: int = 10) -> Tensor:
    return draw(count, 3, 6, 6, seed=2)


def batches(size: int = 4, count: int = 10) -> list[tuple[Tensor, Tensor]]:
    """Images and labels, in batches of `size`."""
    labels = torch.arange(count) % 4
    return list(zip(images(count).split(size), labels.split(size), strict=True))
