"""Every rung of the ladder: (seed's data) -> (network, ensemble, backward passes in units of one run)."""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
import torch.nn.functional as F
from setting import EPOCHS, MOMENTUM, RATE, Split, alone, descent, network, refreshed, run, together
from torch import nn

import pluria
from pluria.core.ensemble import Ensemble
from pluria.train import (
    EMA,
    IVON,
    SGHMC,
    SWA,
    SWAG,
    Cycle,
    Snapshots,
    along,
    batch_ensemble,
    cosine,
    cycles,
    distillation_loss,
    ens_loss,
    every,
    independent,
    late_phase,
    masksembles,
    packed_ensemble,
    prune_and_tune,
    subnetworks,
    subspace,
)

Rung = tuple[nn.Module, Ensemble, float]


def start(data: Split, member: int = 0, **options: object) -> nn.Sequential:
    return network(100 * data.seed + member, **options)  # type: ignore[arg-type]


def base(data: Split, member: int = 0, **options: object) -> nn.Module:
    """One run."""
    model = start(data, member, **options)
    run(model, data, member=member)
    return model


def one(data: Split) -> Rung:
    model = base(data)
    return model, alone(model), 1


def deep(data: Split, members: int = 4) -> Rung:
    ensemble = independent((start(data, m) for m in range(members)), lambda model, m: fitted(model, data, m))
    return start(data), ensemble, members


def fitted(model: nn.Module, data: Split, member: int) -> nn.Module:
    run(model, data, member=member)
    return model


def snapshots(data: Split, budget: int = 1) -> Rung:
    model, epochs = start(data), EPOCHS * budget
    cycle = cycles(epochs * data.steps, 4)
    points = Snapshots(cycle.ends)
    states = run(model, data, epochs=epochs, cycle=cycle, collectors={"points": points})
    return model, points.ensemble(states["points"]), budget


def geometric(data: Split) -> Rung:
    """Four fifths of a run, then triangles of four epochs."""
    model = start(data)
    whole = Cycle(EPOCHS * data.steps)
    run(model, data, epochs=0.8 * EPOCHS, cycle=whole)
    cycle = Cycle(3 * data.steps, shape="triangle", low=0.01)
    points = Snapshots(cycle.ends)
    states = run(
        model, data, epochs=12, first=48, cycle=cycle, optimizer=descent(model, 0.05), collectors={"p": points}
    )
    return model, points.ensemble(states["p"]), 1


def tail(data: Split, what: str) -> Rung:
    """Three quarters of a run, then a constant rate: SWA, EMA and SWAG see the same iterates."""
    model = start(data)
    run(model, data, epochs=45, cycle=Cycle(EPOCHS * data.steps))
    collectors = {"swa": SWA(every(data.steps)), "ema": EMA(0.95), "swag": SWAG(20, every(data.steps))}
    constant = Cycle(10**9)
    states = run(
        model, data, epochs=15, first=45, cycle=constant, optimizer=descent(model, 0.05), collectors=collectors
    )
    options = {"members": 20, "key": data.seed} if what == "swag" else {}
    ensemble = collectors[what].ensemble(states[what], **options)  # type: ignore[call-arg]
    return model, refreshed(model, ensemble, data), 1


def cyclical(data: Split, temperature: float) -> Rung:
    model = start(data)
    cycle = cycles(EPOCHS * data.steps, 4)
    noisy = SGHMC(model.parameters(), RATE, data_size=400, friction=0.1, weight_decay=5e-4, key=data.seed)

    def anneal(step: int) -> None:
        noisy.param_groups[0]["temperature"] = temperature if cycle.samples(step, share=0.2) else 0.0

    points = Snapshots(lambda step: cycle.samples(step, share=0.2, every=8))
    states = run(model, data, cycle=cycle, optimizer=noisy, collectors={"p": points}, before=anneal)
    return model, points.ensemble(states["p"]), 1


def variational(data: Split, rate: float) -> Rung:
    model = start(data)
    optimizer = IVON(
        model.parameters(), rate, data_size=400, hess_init=1.0, weight_decay=5e-4, beta2=0.9995, key=data.seed
    )
    run(model, data, optimizer=optimizer)
    return model, refreshed(model, optimizer.ensemble(model, members=20, key=data.seed), data), 1


def mc_dropout(data: Split) -> Rung:
    model = base(data, dropout=0.25)
    seeded, ensemble = pluria.dropout(model, members=20, key=data.seed)
    return seeded, ensemble, 1


def ex_uno(data: Split) -> Rung:
    population = subnetworks(start(data), members=4, key=data.seed)
    together(population, data)
    return start(data), population.ensemble(), 4


def pruned(data: Split, epochs: int) -> Rung:
    parent = start(data)
    run(parent, data, epochs=42)
    population = prune_and_tune(parent, members=6, key=data.seed)
    together(population, data, epochs=epochs)
    return parent, population.ensemble(), (42 + 6 * epochs) / EPOCHS


def factors(data: Split, init: str) -> Rung:
    population = batch_ensemble(start(data), members=4, init=init, key=data.seed)  # type: ignore[arg-type]
    together(population, data)
    return start(data), population.ensemble(), 4


def packed(data: Split) -> Rung:
    population = packed_ensemble(start(data), members=4, alpha=2.0, key=data.seed)
    together(population, data)
    return population.network, population.ensemble(), 4


def masked(data: Split) -> Rung:
    population = masksembles(start(data), members=4, scale=2.0, key=data.seed)
    together(population, data)
    return start(data), population.ensemble(), 4


def late(data: Split, share: float, sigma: float) -> Rung:
    """The average of late-phase norms and last layers from `share` of the run on; five members share its data."""
    model = start(data)
    if share:
        run(model, data, epochs=share * EPOCHS, cycle=Cycle(EPOCHS * data.steps))
    population = late_phase(model, members=5, sigma=sigma, key=data.seed)
    together(population, data, epochs=(1 - share) * EPOCHS / 5, rate=RATE * (0.4 if share else 1.0))
    return model, refreshed(model, population.average(), data), 1


def line(data: Split, beta: float, points: int) -> Rung:
    """A learned line: its middle, or five points on it."""
    span = subspace([start(data), start(data, 1)])
    stepper = descent(span)
    schedule = Cycle(EPOCHS * data.steps).scheduler(stepper)
    generator = torch.Generator().manual_seed(data.seed)
    span.train()
    for number in range(EPOCHS):
        for x, y in data.epoch(number):
            stepper.zero_grad()
            loss = F.cross_entropy(span(x, shares=along(torch.rand((), generator=generator), 2)), y)
            torch.autograd.backward(loss + beta * cosine(span, 0, 1))
            stepper.step()
            schedule.step()
    t = torch.linspace(0, 1, points) if points > 1 else torch.tensor([0.5])
    return start(data), refreshed(start(data), span.ensemble(along(t, 2)), data), 1


def random_losses(data: Split) -> Rung:
    model, step = start(data), [0]

    def loss(network: nn.Module, batch: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
        step[0] += 1
        return ens_loss(network(batch[0]), batch[1], key=data.seed, step=step[0])

    run(model, data, loss=loss)
    return model, alone(model), 1


def distilled(data: Split) -> Rung:
    model, ensemble, cost = deep(data)
    teachers = [copy.deepcopy(model).eval() for _ in range(4)]
    for teacher, params in zip(teachers, ensemble, strict=True):
        teacher.load_state_dict(params)
    student = start(data, 9)

    def loss(network: nn.Module, batch: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
        with torch.no_grad():
            told = torch.stack([teacher(batch[0]) for teacher in teachers])
        return distillation_loss(network(batch[0]), told, temperature=2.0)

    run(student, data, loss=loss)
    return student, alone(student), cost + 1


def rounded(rung: Callable[[Split], Rung], format: str, members: int) -> Callable[[Split], Rung]:
    """Low precision on top: members drawn from each network of a rung."""

    def made(data: Split) -> Rung:
        model, ensemble, cost = rung(data)
        drawn = pluria.low_precision(
            ensemble, format=format, members=members * len(ensemble), roles=pluria.roles(model), key=data.seed
        )
        return model, pluria.refresh(model, drawn, [data.x], reference=ensemble), cost

    return made


LADDER: dict[str, Callable[[Split], Rung]] = {
    "single": one,
    "deep ensemble × 4": deep,
    "SSE × 4": snapshots,
    "SSE × 4, four runs long": lambda data: snapshots(data, 4),
    "FGE × 4": geometric,
    "SWA": lambda data: tail(data, "swa"),
    "EMA": lambda data: tail(data, "ema"),
    "SWAG × 20": lambda data: tail(data, "swag"),
    "cyclical SGHMC, T = 1": lambda data: cyclical(data, 1.0),
    "cyclical SGHMC, T = 1/N": lambda data: cyclical(data, 1 / 400),
    "IVON × 20, rate 0.1": lambda data: variational(data, RATE),
    # The rate at which a normalised average of gradients does what SGD with momentum does.
    "IVON × 20, rate 1": lambda data: variational(data, RATE / (1 - MOMENTUM)),
    "MC dropout × 20": mc_dropout,
    "subnetworks × 4": ex_uno,
    "prune and tune × 6, 3 epochs": lambda data: pruned(data, 3),
    "prune and tune × 6, 30 epochs": lambda data: pruned(data, 30),
    "BatchEnsemble × 4, normal": lambda data: factors(data, "normal"),
    "BatchEnsemble × 4, signs": lambda data: factors(data, "sign"),
    "packed × 4": packed,
    "Masksembles × 4": masked,
    "late phase × 5 averaged": lambda data: late(data, 0.6, 0.0),
    "late phase × 5 averaged, from the start": lambda data: late(data, 0.0, 0.5),
    "line, its middle": lambda data: line(data, 1.0, 1),
    "line, its middle, no penalty": lambda data: line(data, 0.0, 1),
    "line × 5": lambda data: line(data, 1.0, 5),
    "EnsLoss": random_losses,
    "distilled from × 4": distilled,
    "single, INT-4 × 8": rounded(one, "int4", 8),
    "deep ensemble × 4, INT-4 × 2 each": rounded(deep, "int4", 2),
    "SSE × 4, INT-4 × 2 each": rounded(snapshots, "int4", 2),
    "SWA, INT-4 × 8": rounded(lambda data: tail(data, "swa"), "int4", 8),
}
