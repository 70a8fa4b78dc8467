"""The small network that estimators fit: inputs standardised, a multilayer perceptron, for regression outputs undone.

    x -> (x - mean) / std -> mlp -> z * std_y + mean_y

Means and standard deviations are those of the training rows, and buffers of the network, so it takes rows as they are.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pluria.zoo.fit import Loss
from pluria.zoo.networks import network

SMALLEST = 1e-12
"""Standard deviations below this share of the largest value are those of a constant."""


class Standardise(nn.Module):
    """`(x - mean) / std`, or with `undo` its inverse; both are buffers."""

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Tensor, std: Tensor, *, undo: bool = False) -> None:
        super().__init__()
        self.undo = undo
        self.register_buffer("mean", mean)
        self.register_buffer("std", std)

    def forward(self, x: Tensor) -> Tensor:
        """Each column of x `[N, D]` with mean 0 and standard deviation 1, or back."""
        return x * self.std + self.mean if self.undo else (x - self.mean) / self.std


def moments(values: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """Weighted mean and standard deviation `[D]` of the columns of `[N, D]`; that of a constant column is 1.

    >>> moments(torch.tensor([[1.0, 5.0], [4.0, 5.0]]), torch.tensor([2.0, 1.0]))
    (tensor([2., 5.]), tensor([1.4142, 1.0000]))
    """
    wide, share = values.to(torch.float64), weights.to(torch.float64)[:, None]
    share = share / share.sum()
    mean = (share * wide).sum(0)
    std = (share * (wide - mean).square()).sum(0).sqrt()
    std = torch.where(std > SMALLEST * wide.abs().amax(0), std, 1.0)
    return mean.to(values.dtype), std.to(values.dtype)


def untrained(
    inputs: tuple[Tensor, Tensor], outputs: int, *, hidden: Sequence[int], seed: int, undo: tuple[Tensor, Tensor] | None
) -> nn.Sequential:
    """The network before training, in float64; `inputs` and `undo` are moments of rows and of targets."""
    parts = [Standardise(*inputs), network("mlp", seed=seed, inputs=len(inputs[0]), classes=outputs, hidden=hidden)]
    whole = nn.Sequential(*parts) if undo is None else nn.Sequential(*parts, Standardise(*undo, undo=True))
    # Features may be large numbers that differ little, such as times; the network is too small for this to cost much.
    return whole.to(torch.float64)


def cross_entropy(x: Tensor, y: Tensor, weights: Tensor) -> Loss:
    """Weighted mean cross-entropy of rows x `[N, D]` at classes y `[N]`; weights have the mean one."""

    def loss(model: nn.Module, rows: Tensor) -> Tensor:
        each: Tensor = weights[rows] * F.cross_entropy(model(x[rows]), y[rows], reduction="none")
        return each.mean()

    return loss


def squared_error(x: Tensor, y: Tensor, weights: Tensor, std: Tensor) -> Loss:
    """Weighted mean of ((f(x) - y) / std)^2 over rows and targets y `[N, T]`; weights have the mean one."""

    def loss(model: nn.Module, rows: Tensor) -> Tensor:
        each: Tensor = weights[rows, None] * ((model(x[rows]) - y[rows]) / std).square()
        return each.mean()

    return loss
