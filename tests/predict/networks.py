"""Small networks and batches for the tests of prediction."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor, nn

from pluria.core.ensemble import Ensemble
from pluria.sample import low_precision

Made = TypeVar("Made")


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def seeded(make: Callable[[], Made]) -> Made:
    """What is made with the same random numbers every time."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return make()


def convolutional() -> nn.Sequential:
    """Images [N, 3, 6, 6] -> 4 classes, with batch norms whose statistics are not trivial."""
    net = seeded(
        lambda: nn.Sequential(
            nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.Flatten(), nn.Linear(32, 4)
        )
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


K = 5


def ensemble() -> Ensemble:
    return low_precision(convolutional(), format="int4", members=K)


def by_hand(model: nn.Module, made: Ensemble, x: Tensor) -> Tensor:
    """Each member loaded into a copy of the model, as a user would."""
    twin, rows = copy.deepcopy(model).eval(), []
    for params in made:
        twin.load_state_dict(params)
        with torch.no_grad():
            rows.append(twin(x))
    return torch.stack(rows)


class Named(nn.Module):
    """Takes two tensors, by position or by name, and gives what it is told to give."""

    def __init__(self, form: str = "tensor") -> None:
        super().__init__()
        self.layer, self.form = nn.Linear(3, 2), form
        with torch.no_grad():
            self.layer.weight.copy_(draw(2, 3))
            self.layer.bias.zero_()

    def forward(self, x: Tensor, shift: Tensor | None = None, *, flag: bool = True) -> object:
        result = self.layer(x if shift is None else x + shift)
        return {
            "tensor": result,
            "tuple": (result, None),
            "list": [result],
            "dict": {"loss": None, "logits": result},
            "object": Output(logits=result),
            "nested": Output(logits=(result, 1)),
            "words": "no logits here",
            "other dict": {"hidden": result},
            "empty": (),
        }[self.form]


@dataclass
class Output:
    logits: object
    loss: float = 0.0


X, SHIFT = draw(6, 3, seed=3), draw(6, 3, seed=4)
WANTED = (X + SHIFT) @ draw(2, 3).T
