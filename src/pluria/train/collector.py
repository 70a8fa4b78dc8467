"""A collector folds a training run into an ensemble, and only reads: the user's loop stays the user's.

    state = collector.start(model)
    after each optimiser step:  state = collector.update(state, model, step)      step counts from 1
    ensemble = collector.ensemble(state)

`when` says which steps are looked at; `every` and a cycle's `ends` are such functions.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from torch import nn

from pluria.core.ensemble import Ensemble
from pluria.train.state import State

When = Callable[[int], bool]
"""Whether a collector looks at the network after this many steps."""


class Collector(Protocol):
    """Reads a run, step by step; frozen dataclasses implement it."""

    def start(self, model: nn.Module) -> State:
        """The state before the first step."""
        ...

    def update(self, state: State, model: nn.Module, step: int) -> State:
        """The state after `step` steps; parameters that are not finite leave it as it was, and are noted in it."""
        ...

    def ensemble(self, state: State) -> Ensemble:
        """What was collected. Raises ValueError where there is nothing yet."""
        ...


def every(steps: int, *, begin: int = 0) -> When:
    """True after each `steps` steps from the first multiple beyond `begin` on.

    >>> [step for step in range(1, 10) if every(3, begin=3)(step)]
    [6, 9]
    """
    if steps < 1 or begin < 0:
        raise ValueError(f"look every 1 or more steps, from step 0 or later on; got {steps} and {begin}")
    return lambda step: step > begin and step % steps == 0


def always(step: int) -> bool:
    """True after each step."""
    return True
