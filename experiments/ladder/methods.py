"""Every rung of the ladder: (seed's data) -> (network, ensemble, backward passes in units of one run)."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any

import torch
from parts import (
    Rung,
    adapters,
    base,
    claimed,
    ex_uno,
    factors,
    jointly,
    late,
    line,
    masked,
    packed,
    pruned,
    pushed,
    start,
    tangents,
)
from setting import EPOCHS, MOMENTUM, RATE, Split, alone, descent, refreshed, run
from torch import nn

import pluria
from pluria.train import (
    EMA,
    IVON,
    SGHMC,
    SWA,
    SWAG,
    Cycle,
    Snapshots,
    SparseTraining,
    State,
    cycles,
    distillation_loss,
    diversity_loss,
    ens_loss,
    every,
    independent,
    multi_swag,
)


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


def late_iterates(data: Split, collectors: dict[str, Any], member: int = 0) -> tuple[nn.Module, Mapping[str, State]]:
    """Three quarters of a run, then a constant rate, of which the collectors see the end of each epoch."""
    model = start(data, member)
    run(model, data, epochs=45, member=member, cycle=Cycle(EPOCHS * data.steps))
    states = run(
        model, data, epochs=15, first=45, member=member, cycle=Cycle(10**9), optimizer=descent(model, 0.05),
        collectors=collectors,
    )  # fmt: skip
    return model, states


def tail(data: Split, what: str, refresh: bool = True) -> Rung:
    """SWA, EMA and SWAG see the same iterates."""
    collectors = {"swa": SWA(every(data.steps)), "ema": EMA(0.95), "swag": SWAG(20, every(data.steps))}
    model, states = late_iterates(data, collectors)
    options = {"members": 20, "key": data.seed} if what == "swag" else {}
    ensemble = collectors[what].ensemble(states[what], **options)  # type: ignore[call-arg]
    return model, refreshed(model, ensemble, data) if refresh else ensemble, 1


def several_swag(data: Split) -> Rung:
    swag = SWAG(20, every(data.steps))
    runs = [late_iterates(data, {"swag": swag}, member) for member in range(4)]
    ensemble = multi_swag(swag, [states["swag"] for _, states in runs], members=5, key=data.seed)
    return runs[0][0], refreshed(runs[0][0], ensemble, data), 4


def tickets(data: Split, budget: int) -> Rung:
    """A sparse run that leaves its basin after each of four cycles."""
    model, cycle = start(data), cycles(EPOCHS * budget * data.steps, 4)
    sparse, stepper, points = SparseTraining(model, key=data.seed), descent(model), Snapshots(cycle.ends)
    stepper.register_step_post_hook(lambda *_: sparse.mask())

    def leave(step: int) -> None:
        if cycle.ends(step - 1):
            sparse.explore(0.8)

    states = run(
        model, data, epochs=EPOCHS * budget, cycle=cycle, optimizer=stepper, collectors={"p": points}, before=leave
    )
    return model, points.ensemble(states["p"]), budget


def cyclical(data: Split, temperature: float, friction: float = 0.1, rate: float = RATE) -> Rung:
    """Samples at the ends of four cycles; at friction 1 it is SGLD."""
    model = start(data)
    cycle = cycles(EPOCHS * data.steps, 4)
    noisy = SGHMC(model.parameters(), rate, data_size=400, friction=friction, weight_decay=5e-4, key=data.seed)

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
    "SWA, stale norms": lambda data: tail(data, "swa", refresh=False),
    "EMA": lambda data: tail(data, "ema"),
    "SWAG × 20": lambda data: tail(data, "swag"),
    "MultiSWAG × 4 × 5": several_swag,
    "cyclical SGHMC, T = 1": lambda data: cyclical(data, 1.0),
    "cyclical SGHMC, T = 1/N": lambda data: cyclical(data, 1 / 400),
    "cyclical SGLD, T = 1": lambda data: cyclical(data, 1.0, 1.0, 0.5),
    "cyclical SGLD, T = 1/N": lambda data: cyclical(data, 1 / 400, 1.0, 0.5),
    "IVON × 20, rate 0.1": lambda data: variational(data, RATE),
    # The rate at which a normalised average of gradients does what SGD with momentum does.
    "IVON × 20, rate 1": lambda data: variational(data, RATE / (1 - MOMENTUM)),
    "MC dropout × 20": mc_dropout,
    "subnetworks × 4": ex_uno,
    "subnetworks × 4, claimed": claimed,
    "prune and tune × 6, 3 epochs": lambda data: pruned(data, 3),
    "prune and tune × 6, 3 epochs, random": lambda data: pruned(data, 3, random=True),
    "prune and tune × 6, 30 epochs": lambda data: pruned(data, 30),
    "prune and tune × 6, 30 epochs, random": lambda data: pruned(data, 30, random=True),
    "sparse tickets × 4": lambda data: tickets(data, 1),
    "sparse tickets × 4, four runs long": lambda data: tickets(data, 4),
    "LoRA × 4 on one network": adapters,
    "BatchEnsemble × 4, normal": lambda data: factors(data, "normal"),
    "BatchEnsemble × 4, signs": lambda data: factors(data, "sign"),
    "packed × 4": packed,
    "Masksembles × 4": masked,
    "late phase × 5 averaged": lambda data: late(data, 0.6, 0.0),
    "late phase × 5 averaged, rank 1": lambda data: late(data, 0.6, 0.0, "rank1"),
    "late phase × 5 averaged, last layer": lambda data: late(data, 0.6, 0.0, "last"),
    "late phase × 5 averaged, hypernetwork": lambda data: late(data, 0.6, 0.0, "hyper"),
    "late phase × 5 averaged, from the start": lambda data: late(data, 0.0, 0.5),
    "late phase × 5 averaged, rank 1, from the start": lambda data: late(data, 0.0, 0.5, "rank1"),
    "late phase × 5, rank 1, from the start": lambda data: late(data, 0.0, 0.5, "rank1", average=False),
    "line, its middle": lambda data: line(data, 1.0, 1),
    "line, its end": lambda data: line(data, 1.0, 1, 0.0),
    "line, its middle, no penalty": lambda data: line(data, 0.0, 1),
    "line × 5": lambda data: line(data, 1.0, 5),
    "tangents × 4, composed": tangents,
    "together × 4, gamma = 1": lambda data: jointly(data, lambda o, y: diversity_loss(o, y, gamma=1.0)),
    "repulsive × 4": lambda data: jointly(data, pushed),
    "EnsLoss": random_losses,
    "distilled from × 4": distilled,
    "single, INT-4 × 8": rounded(one, "int4", 8),
    "deep ensemble × 4, INT-4 × 2 each": rounded(deep, "int4", 2),
    "SSE × 4, INT-4 × 2 each": rounded(snapshots, "int4", 2),
    "SWA, INT-4 × 8": rounded(lambda data: tail(data, "swa"), "int4", 8),
}
