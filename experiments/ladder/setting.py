"""The setting of the ladder: 400 digits to learn from, a small network with batch norm, and runs counted in epochs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pluria.align import refresh
from pluria.core.ensemble import Ensemble, single
from pluria.core.params import params_of
from pluria.train import Collector, Cycle, Population, State, train
from pluria.zoo import read

EPOCHS, BATCH, RATE, MOMENTUM, DECAY = 60, 50, 0.1, 0.9, 5e-4
Batch = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Split:
    """One seed's 400 training rows, and the 1,397 others in two halves: to calibrate, and for the figures."""

    seed: int
    x: Tensor
    y: Tensor
    calibration: Batch
    figures: Batch

    def epoch(self, number: int, *, member: int = 0) -> list[Batch]:
        """The shuffled batches of an epoch, a pure function of seed, member and number."""
        generator = torch.Generator().manual_seed(1_000_000 * self.seed + 1000 * member + number)
        return [(self.x[rows], self.y[rows]) for rows in torch.randperm(len(self.y), generator=generator).split(BATCH)]

    @property
    def steps(self) -> int:
        """Optimiser steps of an epoch."""
        return -(-len(self.y) // BATCH)


def split(seed: int) -> Split:
    """The digits, shuffled by the seed."""
    data = read("digits", split="all")
    order = torch.randperm(len(data), generator=torch.Generator().manual_seed(seed))
    x, y = data.normalise(data.inputs)[order].flatten(1), data.targets[order]
    half = 400 + (len(y) - 400) // 2
    return Split(seed, x[:400], y[:400], (x[400:half], y[400:half]), (x[half:], y[half:]))


def network(seed: int, *, width: int = 64, norm: bool = True, dropout: float = 0.0) -> nn.Sequential:
    """64-W-W-10 with batch norm, at the start that belongs to the seed."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        layers: list[nn.Module] = []
        for before in (64, width):
            layers += [nn.Linear(before, width), *([nn.BatchNorm1d(width)] if norm else []), nn.ReLU()]
            layers += [nn.Dropout(dropout)] if dropout else []
        return nn.Sequential(*layers, nn.Linear(width, 10))


def cross_entropy(model: nn.Module, batch: Batch) -> Tensor:
    """The mean loss of a batch."""
    return F.cross_entropy(model(batch[0]), batch[1])


def descent(model: nn.Module, rate: float = RATE) -> torch.optim.SGD:
    """The optimiser of all runs that do not say otherwise."""
    return torch.optim.SGD(
        [p for p in model.parameters() if p.requires_grad], rate, momentum=MOMENTUM, weight_decay=DECAY
    )


def run(
    model: nn.Module,
    data: Split,
    *,
    epochs: float = EPOCHS,
    member: int = 0,
    first: int = 0,
    cycle: Cycle | None = None,
    optimizer: torch.optim.Optimizer | None = None,
    collectors: Mapping[str, Collector] | None = None,
    loss: Callable[[Any, Batch], Tensor] = cross_entropy,
    before: Callable[[int], None] | None = None,
) -> Mapping[str, State]:
    """Train in place; the rate follows `cycle`, one cosine over the run unless given."""
    count = round(epochs)
    stepper = descent(model) if optimizer is None else optimizer
    schedule = (cycle or Cycle(max(1, count * data.steps))).scheduler(stepper)
    with torch.random.fork_rng():
        torch.manual_seed(7_000_000 + 1000 * data.seed + member)
        found = train(
            model, lambda number: data.epoch(first + number, member=member), loss, optimizer=stepper, epochs=count,
            scheduler=schedule, collectors=collectors, before=before,
        )  # fmt: skip
    model.eval()
    return found.states


def together(
    population: Population,
    data: Split,
    *,
    epochs: float = EPOCHS,
    rate: float = RATE,
    gamma: float = 1.0,
    own: bool = True,
) -> None:
    """Train a population: at each step a batch for each member, its own or the same for all."""
    from pluria.train import scale_common

    count = round(epochs)
    stepper = descent(population, rate)
    schedule = Cycle(count * data.steps).scheduler(stepper)
    population.train()
    for number in range(count):
        batches = [data.epoch(number, member=member if own else 0) for member in range(population.members)]
        for row in zip(*batches, strict=True):
            stepper.zero_grad()
            for member, (x, y) in enumerate(row):
                torch.autograd.backward(F.cross_entropy(population(x, member=member), y))
            scale_common(population, gamma)
            stepper.step()
            schedule.step()
    population.eval()


def refreshed(model: nn.Module, ensemble: Ensemble, data: Split) -> Ensemble:
    """With batch-norm statistics of the training rows: after averages, draws and mixtures."""
    return refresh(model, ensemble, [data.x], plain=True)


def alone(model: nn.Module) -> Ensemble:
    """The network itself."""
    return single(params_of(model))
