"""A tiny run for every training method in the catalogue: how the laws call it."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from laws.examples import images, network
from pluria.core.ensemble import Ensemble, single, stack
from pluria.core.params import Params, params_of
from pluria.train import (
    SWAG,
    Cycle,
    Population,
    Span,
    State,
    distillation_loss,
    diversity_loss,
    ens_loss,
    every,
    repel,
    subnetworks,
)
from pluria.train import together as joint

LENGTH = 6
SHARES = torch.tensor([[0.2, 0.5, 0.3], [0.6, 0.3, 0.1]], dtype=torch.float64)
Trainer = Callable[[Callable[..., Any], bool], Ensemble]
"""(the method, whether all is stored and loaded half-way) -> what is collected."""


def loss(model: nn.Module) -> Tensor:
    """On fixed images and targets; the network is in evaluation mode, so that nothing is drawn."""
    return F.cross_entropy(model(images()), torch.arange(12) % 3)


def fitted(model: nn.Module, number: int) -> nn.Module:
    """A few steps, at a rate of the member's own."""
    optimizer = torch.optim.SGD(model.parameters(), 0.05 * (number + 1))
    for _ in range(2):
        optimizer.zero_grad()
        torch.autograd.backward(loss(model))
        optimizer.step()
    return model


def watched(collector: Any, resume: bool, seed: int = 0) -> State:
    """A collector's state after plain descent."""
    model = network(seed)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    scheduler = Cycle(3).scheduler(optimizer)
    state: State = collector.start(model)
    for step in range(1, LENGTH + 1):
        optimizer.zero_grad()
        torch.autograd.backward(loss(model))
        optimizer.step()
        scheduler.step()
        state = collector.update(state, model, step)
        if resume and step == LENGTH // 2:
            state = State.from_state_dict(state.state_dict())
    return state


def collected(*given: Any, **options: Any) -> Trainer:
    """A collector made with these arguments."""
    return lambda f, resume: f(*given).ensemble(watched(f(*given), resume), **options)


def stepped(make: Callable[[Callable[..., Any], nn.Module], Any], end: Callable[[Any, nn.Module], Ensemble]) -> Trainer:
    """An optimiser that `make` builds for a network, and the ensemble that `end` takes from both."""

    def run(f: Callable[..., Any], resume: bool) -> Ensemble:
        model = network()
        optimizer = make(f, model)
        for step in range(LENGTH):
            if resume and step == LENGTH // 2:
                saved, params = optimizer.state_dict(), model.state_dict()
                model = network(9)
                model.load_state_dict(params)
                optimizer = make(f, model)
                optimizer.load_state_dict(saved)
            optimizer.zero_grad()
            optimizer.step(partial(closure, model))
        return end(optimizer, model)

    def closure(model: nn.Module) -> float:
        value = loss(model)
        torch.autograd.backward(value)
        return value.item()

    return run


def point(optimizer: Any, model: nn.Module) -> Ensemble:
    """The network as it stands."""
    return single(params_of(model))


def answered(module: Any, member: int) -> Tensor:
    """A population's member on data of its own, a span at shares of its own, or the one answer of a module."""
    if isinstance(module, Population):
        return module(images(10 + member), member=member)  # type: ignore[no-any-return]
    if isinstance(module, Span):
        return module(images(), shares=torch.tensor([0.5, 0.2, 0.3]).roll(member))  # type: ignore[no-any-return]
    return module(images())  # type: ignore[no-any-return]


def grown(make: Callable[[Callable[..., Any]], Any], end: Callable[[Any], Ensemble]) -> Trainer:
    """A module that `make` builds, trained as any module is, and the ensemble that `end` takes from it."""

    def run(f: Callable[..., Any], resume: bool) -> Ensemble:
        module = make(f)
        for step in range(LENGTH):
            if resume and step == LENGTH // 2:
                saved, module = module.state_dict(), make(f)
                module.load_state_dict(saved)
            optimizer = torch.optim.SGD([p for p in module.parameters() if p.requires_grad], 0.1)
            optimizer.zero_grad()
            for member in range(3):
                output = answered(module, member)
                torch.autograd.backward(F.cross_entropy(output, torch.arange(len(output)) % 3))
            optimizer.step()
        return end(module)

    return run


def together(objective: Callable[[Tensor, Tensor, int], Tensor]) -> Trainer:
    """Three networks with nothing in common, trained on a loss of all their logits `[K, N, C]`."""

    def run(f: Callable[..., Any], resume: bool) -> Ensemble:
        population = joint([network(seed) for seed in (1, 2, 3)])
        for step in range(LENGTH):
            if resume and step == LENGTH // 2:
                saved, population = population.state_dict(), joint([network(seed) for seed in (7, 8, 9)])
                population.load_state_dict(saved)
            optimizer = torch.optim.SGD([p for p in population.parameters() if p.requires_grad], 0.1)
            optimizer.zero_grad()
            torch.autograd.backward(objective(population(images()), torch.arange(12) % 3, step))
            optimizer.step()
        return population.ensemble()

    return run


def claimed(f: Callable[..., Any], resume: bool) -> Ensemble:
    """Subnetworks under masks that members claim after a few steps each."""

    def fit(model: nn.Module, free: Any, member: int) -> Params:
        return params_of(fitted(copy.deepcopy(model), member))

    masks = f(network(), fit, members=3)
    return grown(lambda make: make(network(), members=3, masks=masks), lambda m: m.ensemble())(subnetworks, resume)


def particles(f: Callable[..., Any], resume: bool) -> Ensemble:
    """Three networks as particles in the space of their weights."""
    models = [network(seed) for seed in (1, 2, 3)]
    for step in range(LENGTH):
        if resume and step == LENGTH // 2:
            saved, models = [model.state_dict() for model in models], [network(seed) for seed in (7, 8, 9)]
            for model, params in zip(models, saved, strict=True):
                model.load_state_dict(params)
        for model in models:
            model.zero_grad()
            torch.autograd.backward(loss(model))
        own = [list(model.parameters()) for model in models]
        points = torch.stack([parameters_to_vector(each) for each in own]).detach()
        scores = -torch.stack([parameters_to_vector([p.grad for p in each if p.grad is not None]) for each in own])
        for each, row in zip(own, points + 0.05 * f(points, scores), strict=True):
            vector_to_parameters(row, each)
    return stack([params_of(model) for model in models])


def repelled(outputs: Tensor, targets: Tensor, step: int) -> Tensor:
    """Minus the log posterior of each member, pushed apart by its outputs."""
    log_likelihood = -F.cross_entropy(outputs.transpose(1, 2), targets.expand(3, -1), reduction="sum")
    scores = torch.autograd.grad(log_likelihood, outputs, retain_graph=True)[0]
    return repel(outputs, scores) / 12


def sparse(f: Callable[..., Any], resume: bool) -> Ensemble:
    """A sparse network that explores now and then."""
    model = network()
    held = f(model, density=0.5)
    for step in range(LENGTH):
        if resume and step == LENGTH // 2:
            params, masks, model = model.state_dict(), held.state_dict(), network(9)
            held = f(model, density=0.5, key=9)
            model.load_state_dict(params)
            held.load_state_dict(masks)
        optimizer = torch.optim.SGD(model.parameters(), 0.1)
        optimizer.zero_grad()
        torch.autograd.backward(loss(model))
        if step % 2:
            held.explore(0.3)
        optimizer.step()
        held.mask()
    return point(None, model)


def moved(tangent: Any) -> Ensemble:
    """The network after the steps that were learned at its tangent."""
    steps = tangent.params()
    whole = {name: value + steps.get(name, 0) for name, value in tangent.network.state_dict().items()}
    return single(params_of(network()) | {name: value.detach() for name, value in whole.items()})


def wide() -> nn.Sequential:
    """The network of the laws, as a packed ensemble of twice the width makes its own of."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Conv2d(2, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Dropout(0.3), nn.Linear(72, 3)
        )


TRAINERS: dict[str, Trainer] = {
    "SWA": collected(every(2)),
    "EMA": collected(0.5),
    "SWAG": collected(3, members=4),
    "multi_swag": lambda f, resume: f(SWAG(2), [watched(SWAG(2), resume, seed) for seed in (0, 1)], members=2),
    "Snapshots": collected(Cycle(3).ends),
    "IVON": stepped(lambda f, m: f(m.parameters(), 0.1, data_size=12), lambda o, m: o.ensemble(m, members=3)),
    "SGLD": stepped(lambda f, m: f(m.parameters(), 0.1, data_size=12), point),
    "SGHMC": stepped(lambda f, m: f(m.parameters(), 0.1, data_size=12), point),
    "independent": lambda f, resume: f([network(seed) for seed in (0, 1)], fitted),
    "local": lambda f, resume: f(network(), fitted, members=3),
    "chain": lambda f, resume: f(network(), fitted, members=3),
    "batch_ensemble": grown(lambda f: f(network(), members=3), lambda m: m.ensemble()),
    "lora": grown(lambda f: f(network(), members=3, rank=2), lambda m: m.ensemble()),
    "late_phase": grown(lambda f: f(network(), members=3), lambda m: m.ensemble()),
    "curve": grown(
        lambda f: f(network(), [params_of(network(1)), params_of(network(2))]), lambda m: m.ensemble(SHARES)
    ),
    "subspace": grown(lambda f: f([network(1), network(2), network(3)]), lambda m: m.ensemble(SHARES)),
    "subnetworks": grown(lambda f: f(network(), members=3), lambda m: m.ensemble()),
    "claimed_masks": claimed,
    "prune_and_tune": grown(lambda f: f(network(), members=3), lambda m: m.ensemble()),
    "masksembles": grown(lambda f: f(network(), members=3), lambda m: m.ensemble()),
    "packed_ensemble": grown(lambda f: f(wide().eval(), members=4, alpha=2.0), lambda m: m.ensemble()),
    "SparseTraining": sparse,
    "repulsive": particles,
    "repel": together(repelled),
    "Tangent": grown(lambda f: f(network()), moved),
    "diversity_loss": together(lambda outputs, y, step: diversity_loss(outputs, y, gamma=0.5)),
    "ens_loss": together(lambda outputs, y, step: ens_loss(outputs.flatten(0, 1), y.repeat(3), step=step)),
    "distillation_loss": together(lambda outputs, y, step: distillation_loss(outputs.mean(0), 2 * outputs.detach())),
    "star": lambda f, resume: f(network(), fitted, members=3),
}
