"""How the loss changes on the straight line between two networks, for all tensors at once and for one layer alone.

    height = max over a of  L((1 - a) first + a second) - ((1 - a) L(first) + a L(second))

A height of zero means that the mean of the two is as good as they are. One layer alone is moved twice, with all other
layers those of the first network and those of the second; the line is that between the whole networks.
Sources: Frankle, Dziugaite, Roy and Carbin, "Linear mode connectivity and the lottery ticket hypothesis", ICML 2020;
Adilova et al., "Layer-wise linear mode connectivity", ICLR 2024.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from pluria.core.ensemble import Ensemble
from pluria.core.family import Shared
from pluria.core.params import Params
from pluria.predict import first, logits, predict
from pluria.predict.batches import Batches
from pluria.sample import path
from pluria.score import NLL, Score, Tally, tally

Losses = Callable[[Ensemble], Sequence[float]]
"""The loss of each member of an ensemble."""


@dataclass(frozen=True, eq=False)
class Barrier:
    """Losses `[steps]` at the shares `[steps]` of the second network, float64."""

    shares: Tensor
    losses: Tensor

    @property
    def line(self) -> Tensor:
        """The straight line between the losses of the two ends, `[steps]`."""
        return torch.lerp(self.losses[0], self.losses[-1], self.shares)

    @property
    def height(self) -> float:
        """How far the losses rise above the line; never negative, since the ends lie on it."""
        return float((self.losses - self.line).max())


def barrier(one: Params, other: Params, losses: Losses, *, steps: int = 11) -> Barrier:
    """The losses on the straight line from one network to the other, ends included.

    `losses` gives the loss of each member of an ensemble, such as `member_losses(model, batches)`. Raises
    CheckpointError where names or shapes differ, ValueError for fewer than two steps.
    """
    return Barrier(torch.linspace(0, 1, steps, dtype=torch.float64), _measured(path([one, other], steps=steps), losses))


def barrier_profile(
    one: Params,
    other: Params,
    losses: Losses,
    *,
    layers: Mapping[str, Sequence[str]] | None = None,
    steps: int = 5,
) -> dict[str, tuple[float, float]]:
    """The height of each layer moved alone: with all others those of the first network, and those of the second.

    layers   names of layers to the names of their tensors; by default the tensors of each module. All tensors in one
             layer give the height of the whole, none gives zero

    It costs 2 `steps` losses a layer. Raises ValueError for a tensor that does not exist.
    """
    layers = modules_of(one) if layers is None else layers
    if unknown := [name for names in layers.values() for name in names if name not in one]:
        raise ValueError(f"a layer has a tensor {unknown[0]!r} that the networks lack")
    line = path([one, other], steps=steps)
    shares = torch.linspace(0, 1, steps, dtype=torch.float64)
    ends = _measured(line.take([0, steps - 1]), losses)
    straight = torch.lerp(ends[0], ends[1], shares)
    found = {}
    for layer, names in layers.items():
        heights = []
        for rest in (one, other):
            still = {name: Shared(value.detach()) for name, value in rest.items() if name not in names}
            heights.append(float((_measured(line.with_families(still), losses) - straight).max().clamp(min=0)))
        found[layer] = heights[0], heights[1]
    return found


def member_losses(
    model: nn.Module,
    batches: Batches,
    *,
    score: Score = NLL,
    change: Callable[[Ensemble], Ensemble] | None = None,
    inputs: Callable[[Any], tuple[Any, Tensor | None]] = first,
    output: Callable[[Any], Tensor] = logits,
) -> Losses:
    """A function that runs an ensemble's members on batches with targets and gives the loss of each.

    score    what is measured of the log-probabilities, the mean negative log-likelihood by default
    change   what is done to an ensemble first, such as refreshing its batch-norm statistics
    """

    def losses(ensemble: Ensemble) -> list[float]:
        ensemble = ensemble if change is None else change(ensemble)
        tallies: dict[int, Tally] = {member: Tally((score,)) for member in ensemble.members}
        for block in predict(model, ensemble, batches, inputs=inputs, output=output):
            pooled = block.outputs[0].log_softmax(-1)
            tallies[block.members[0]] += tally([score], pooled, block.targets)
        return [tallies[member].figures()[score.name] for member in ensemble.members]

    return losses


def modules_of(params: Params) -> dict[str, list[str]]:
    """Names of modules to the names of their own floating tensors."""
    found: dict[str, list[str]] = {}
    for name, value in params.items():
        if value.is_floating_point():
            found.setdefault(name.rpartition(".")[0] or name, []).append(name)
    return found


def _measured(ensemble: Ensemble, losses: Losses) -> Tensor:
    return torch.tensor(list(losses(ensemble)), dtype=torch.float64)
