"""Rungs of the ladder that train several members at once: parts of one network, and networks on one loss."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace

import torch
import torch.nn.functional as F
from setting import EPOCHS, RATE, Batch, Split, alone, descent, network, refreshed, run, together
from torch import Tensor, nn

from pluria.core.ensemble import Ensemble
from pluria.core.params import Params, params_of
from pluria.train import (
    Cycle,
    Tangent,
    along,
    batch_ensemble,
    claimed_masks,
    compose,
    cosine,
    late_phase,
    lora,
    masksembles,
    packed_ensemble,
    paired_masks,
    prune_and_tune,
    repel,
    subnetworks,
    subspace,
)
from pluria.train import together as side_by_side
from pluria.train.masks import Masks

Rung = tuple[nn.Module, Ensemble, float]


def start(data: Split, member: int = 0, **options: object) -> nn.Sequential:
    return network(100 * data.seed + member, **options)  # type: ignore[arg-type]


def base(data: Split, member: int = 0, **options: object) -> nn.Module:
    """One run."""
    model = start(data, member, **options)
    run(model, data, member=member)
    return model


def ex_uno(data: Split) -> Rung:
    population = subnetworks(start(data), members=4, key=data.seed)
    together(population, data)
    return start(data), population.ensemble(), 4


def claimed(data: Split) -> Rung:
    """Subnetworks that claim the largest weights in turn, each after ten epochs on what is free."""

    def fit(model: nn.Module, free: Masks, member: int) -> Params:
        model = copy.deepcopy(model)
        own = dict(model.named_parameters())

        @torch.no_grad()
        def keep(*_: object) -> None:
            for name, mask in free.items():
                own[name].masked_fill_(~mask, 0)

        keep()
        stepper = descent(model)
        stepper.register_step_post_hook(keep)
        run(model, data, epochs=10, member=member, optimizer=stepper)
        return params_of(model)

    masks = claimed_masks(start(data), fit, members=4)
    population = subnetworks(start(data), members=4, masks=masks)
    together(population, data)
    return start(data), population.ensemble(), 4 + 40 / EPOCHS


def pruned(data: Split, epochs: int, random: bool = False) -> Rung:
    """A parent under six masks: three pairs of opposite ones, or six at random."""
    parent = start(data)
    run(parent, data, epochs=42)
    # The first of each pair of twelve.
    masks = {name: pairs[::2] for name, pairs in paired_masks(parent, members=12, key=data.seed).items()}
    population = prune_and_tune(parent, members=6, masks=masks if random else None, key=data.seed)
    together(population, data, epochs=epochs)
    return parent, population.ensemble(), (42 + 6 * epochs) / EPOCHS


def factors(data: Split, init: str) -> Rung:
    population = batch_ensemble(start(data), members=4, init=init, key=data.seed)  # type: ignore[arg-type]
    together(population, data)
    return start(data), population.ensemble(), 4


def adapters(data: Split) -> Rung:
    """Low-rank updates of a trained network, with last layers of their own, for a quarter of a run."""
    population = lora(base(data), members=4, own=("6.weight", "6.bias"), key=data.seed)
    together(population, data, epochs=15, rate=0.01)
    return start(data), population.ensemble(), 2


def jointly(data: Split, objective: Callable[[Tensor, Tensor], Tensor]) -> Rung:
    """Four networks on a loss of all their logits."""
    population = side_by_side([start(data, member) for member in range(4)])
    run(population, data, loss=lambda members, batch: objective(members(batch[0]), batch[1]))
    return start(data), population.ensemble(), 4


def pushed(outputs: Tensor, y: Tensor) -> Tensor:
    """The likelihood of a batch, and repulsion in function space."""
    value = F.cross_entropy(outputs.flatten(0, 1), y.repeat(len(outputs)), reduction="sum")
    return repel(outputs, -torch.autograd.grad(value, outputs, retain_graph=True)[0]) / len(y)


def packed(data: Split) -> Rung:
    population = packed_ensemble(start(data), members=4, alpha=2.0, key=data.seed)
    together(population, data)
    return population.network, population.ensemble(), 4


def masked(data: Split) -> Rung:
    population = masksembles(start(data), members=4, scale=2.0, key=data.seed)
    together(population, data)
    return start(data), population.ensemble(), 4


def late(data: Split, share: float, sigma: float, kind: str = "norm", average: bool = True) -> Rung:
    """The average of late-phase weights from `share` of the run on, or its members; five share its data."""
    model = start(data)
    if share:
        run(model, data, epochs=share * EPOCHS, cycle=Cycle(EPOCHS * data.steps))
    population = late_phase(model, members=5, kind=kind, sigma=sigma, key=data.seed)  # type: ignore[arg-type]
    together(population, data, epochs=(1 - share) * EPOCHS / 5, rate=RATE * (0.4 if share else 1.0))
    return model, refreshed(model, population.average() if average else population.ensemble(), data), 1


def line(data: Split, beta: float, points: int, at: float = 0.5) -> Rung:
    """A learned line: one point on it, its middle unless told, or several from end to end."""
    span = subspace([start(data), start(data, 1)])
    generator = torch.Generator().manual_seed(data.seed)

    def loss(span: nn.Module, batch: Batch) -> Tensor:
        shares = along(torch.rand((), generator=generator), 2)
        return F.cross_entropy(span(batch[0], shares=shares), batch[1]) + beta * cosine(span, 0, 1)  # type: ignore[arg-type]

    run(span, data, loss=loss)
    t = torch.linspace(0, 1, points) if points > 1 else torch.tensor([at])
    return start(data), refreshed(start(data), span.ensemble(along(t, 2)), data), 1


def tangents(data: Split) -> Rung:
    """One network, the mean of four that learn linearly around a trained one, each from a quarter of the rows."""
    network, members = base(data), []
    for member in range(4):
        tangent = Tangent(network)
        rows = replace(data, x=data.x[member::4], y=data.y[member::4])
        run(tangent, rows, epochs=15, member=member, optimizer=descent(tangent, 0.01))
        members.append(tangent)
    both = compose(members).eval()
    return both, alone(both), 1.25
