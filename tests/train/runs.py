"""A tiny run for collectors to look at: a tied network with batch norm, a few real steps."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

Step = Callable[[], None]


class Tied(nn.Module):
    """Two layers of one weight, and a batch norm between them."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm, self.second = nn.Linear(3, 3), nn.BatchNorm1d(3), nn.Linear(3, 3)
        self.second.weight = self.first.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.norm(self.first(x)))  # type: ignore[no-any-return]


def tied(seed: int = 0) -> Tied:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return Tied()


def steps(model: nn.Module, count: int, *, rate: float = 0.1) -> Iterator[int]:
    """Take SGD steps on fixed data; the number of each after it is taken."""
    generator = torch.Generator().manual_seed(1)
    x, y = torch.randn(count, 8, 3, generator=generator), torch.randn(count, 8, 3, generator=generator)
    optimizer = torch.optim.SGD(model.parameters(), rate)
    for number in range(count):
        optimizer.zero_grad()
        torch.autograd.backward((model(x[number]) - y[number]).square().mean())
        optimizer.step()
        yield number + 1
