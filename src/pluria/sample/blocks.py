"""Blocks of a network, and the order in which they and the layers around them run: found by running it once.

A chain is a `ModuleList` or `Sequential` whose members run once each, one after another; of chains inside each other
the outermost counts. What else is in such a list (experts, branches that run more than once) makes it no chain.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from pluria.core.calling import call

Event = tuple[str, nn.Module]
"""What happened ("enter", "leave") to which module."""


@dataclass(frozen=True, eq=False)
class Step:
    """Block number `before` and its chain; without a block, what runs before that block and after the one before it.

    `names` are the layers that run in this step, by the first name of their weight.
    """

    before: int
    block: nn.Module | None
    chain: int
    names: tuple[str, ...]


def steps_of(
    model: nn.Module, batch: Any, layers: Mapping[str, nn.Module], first: Mapping[str, str]
) -> tuple[list[Step], tuple[str, ...]]:
    """Steps in the order of running, and names of weights that are tied or run in several of them.

    `layers` are looked for, by the name of their weight, and `first` says which names are tied. Raises ValueError for a
    network without a chain.
    """
    containers = [m for m in model.modules() if isinstance(m, nn.ModuleList | nn.Sequential) and len(m)]
    events = _events(model, batch, [*(child for one in containers for child in one), *layers.values()])
    chains = _chains(containers, events)
    if not chains:
        raise ValueError(
            f"{type(model).__name__} has no blocks: no ModuleList or Sequential whose members run once each, one after "
            'another. Take the moments of the whole network, follow="model"'
        )
    chain_of = {id(block): number for number, chain in enumerate(chains) for block in chain}
    entered = [module for what, module in events if what == "enter" and id(module) in chain_of]
    uses = _uses(events, {id(block) for block in entered}, layers, first)
    tied = {one for name, one in first.items() if name != one}
    several = tuple(name for name, places in uses.items() if len(places) > 1 or name in tied)
    here: dict[tuple[int, bool], list[str]] = {}
    for name, places in uses.items():
        if name not in several:
            here.setdefault(next(iter(places)), []).append(name)
    steps = []
    for before in range(len(entered) + 1):
        steps.append(Step(before, None, -1, tuple(here.get((before, False), ()))))
        if before < len(entered):
            block = entered[before]
            steps.append(Step(before, block, chain_of[id(block)], tuple(here.get((before, True), ()))))
    return [step for step in steps if step.block is not None or step.names or step is steps[-1]], several


def _events(model: nn.Module, batch: Any, watched: list[nn.Module]) -> list[Event]:
    events: list[Event] = []

    def tell(what: str) -> Callable[..., None]:
        return lambda module, *_: events.append((what, module))

    with ExitStack() as hooks:
        for module in {id(module): module for module in watched}.values():
            hooks.callback(module.register_forward_pre_hook(tell("enter")).remove)
            hooks.callback(module.register_forward_hook(tell("leave")).remove)
        with torch.no_grad():
            call(model, batch)
    return events


def _chains(containers: Sequence[nn.ModuleList | nn.Sequential], events: list[Event]) -> list[list[nn.Module]]:
    """Lists whose members run once each, in order, none inside another; without those inside a list that is taken."""
    runs: dict[int, list[int]] = {}
    for time, (_, module) in enumerate(events):
        runs.setdefault(id(module), []).append(time)
    chains: list[list[nn.Module]] = []
    taken: set[int] = set()
    for container in containers:  # outer ones come first
        members = list(container.children())
        times = [time for member in members for time in runs.get(id(member), [0, 0, 0])]
        if id(container) in taken or len(times) != 2 * len(list(container)) or times != sorted(times):
            continue
        chains.append(members)
        taken |= {id(inner) for inner in container.modules()}
    return chains


def _uses(
    events: list[Event], blocks: set[int], layers: Mapping[str, nn.Module], first: Mapping[str, str]
) -> dict[str, set[tuple[int, bool]]]:
    """Where each weight's layers run: (blocks entered and left before, whether inside the next one)."""
    named = {id(layer): first[name] for name, layer in layers.items()}
    before, inside = 0, False
    uses: dict[str, set[tuple[int, bool]]] = {}
    for what, module in events:
        if what == "enter" and id(module) in blocks:
            inside = True
        if what == "enter" and id(module) in named:
            uses.setdefault(named[id(module)], set()).add((before, inside))
        if what == "leave" and id(module) in blocks:
            before, inside = before + 1, False
    return uses


def all_tensors(value: Any) -> list[Tensor]:
    """The tensors in what a model gives."""
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, Mapping | tuple | list):
        return [
            found for item in (value.values() if isinstance(value, Mapping) else value) for found in all_tensors(item)
        ]
    return []
