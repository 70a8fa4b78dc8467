"""A small network with batch norms, and what its tests share."""

import torch
from torch import Tensor, nn

from predict.networks import draw


def deep() -> nn.Sequential:
    """Two batch norms with statistics of some training run, images [N, 3, 8, 8] -> 4 classes."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = nn.Sequential(
            nn.Conv2d(3, 6, 3, bias=False),
            nn.BatchNorm2d(6),
            nn.ReLU(),
            nn.Conv2d(6, 5, 3),
            nn.BatchNorm2d(5, momentum=0.3),
            nn.Flatten(),
            nn.Linear(80, 4),
        )
    for _ in range(20):
        net(1.3 * torch.rand(32, 3, 8, 8, generator=torch.Generator().manual_seed(_)) - 0.2)
    return net


STATISTICS = ["1.running_mean", "1.running_var", "4.running_mean", "4.running_var"]


def batches(count: int = 3, size: int = 16) -> list[Tensor]:
    return [draw(size, 3, 8, 8, seed=seed) for seed in range(count)]


def differing(one: dict[str, Tensor], other: dict[str, Tensor]) -> list[str]:
    return [name for name in one if not torch.equal(one[name], other[name])]
