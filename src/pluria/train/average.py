"""Averages of the iterates of a run: equal (SWA), or with weights that fade (EMA). One network comes out.

    SWA   mean_n = mean_{n-1} + (w - mean_{n-1}) / n
    EMA   mean_n = d_n mean_{n-1} + (1 - d_n) w      d_n = min(decay, (1 + n) / (10 + n)), n looks before this one

Buffers are the latest. Batch-norm statistics belong to the iterates, not to their mean: refresh them plainly, on inputs
of the training pipeline.

Sources: Izmailov et al., "Averaging Weights Leads to Wider Optima and Better Generalization", UAI 2018; Polyak and
Juditsky, "Acceleration of Stochastic Approximation by Averaging", 1992.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor, nn

from pluria.core.ensemble import Ensemble
from pluria.core.family import Shared
from pluria.train.collector import When, always
from pluria.train.state import State, assembled, looked_at, refuse_empty, started, trainable, wide


@dataclass(frozen=True)
class SWA:
    """The equal average of the iterates after the steps that `when` names."""

    when: When = always

    def start(self, model: nn.Module) -> State:
        """The state before the first step."""
        return started(model)

    def update(self, state: State, model: nn.Module, step: int) -> State:
        """The state after `step` steps."""
        return averaged(state, model, step, lambda seen: 1 / (seen + 1)) if self.when(step) else state

    def ensemble(self, state: State) -> Ensemble:
        """The averaged network as an ensemble of one."""
        return mean_of(state, "iterate")


@dataclass(frozen=True)
class EMA:
    """The exponential average with this `decay`, which starts lower so that the first iterate is soon forgotten."""

    decay: float = 0.999
    when: When = always

    def __post_init__(self) -> None:
        if not 0 <= self.decay < 1:
            raise ValueError(f"a decay lies in [0, 1); got {self.decay}")

    def start(self, model: nn.Module) -> State:
        """The state before the first step."""
        return started(model)

    def update(self, state: State, model: nn.Module, step: int) -> State:
        """The state after `step` steps."""
        share: Callable[[int], float] = lambda seen: 1 - min(self.decay, (1 + seen) / (10 + seen)) if seen else 1.0  # noqa: E731
        return averaged(state, model, step, share) if self.when(step) else state

    def ensemble(self, state: State) -> Ensemble:
        """The averaged network as an ensemble of one."""
        return mean_of(state, "iterate")


def averaged(state: State, model: nn.Module, step: int, share: Callable[[int], float]) -> State:
    """The state with one more iterate in its mean; `share(looks before)` is the newcomer's part of it."""
    state, params = looked_at(state, model, step)
    if params is None:
        return state
    learned, means = trainable(model), state.held("mean")
    part = share(state.count)
    moved = {name: _towards(means.get(name), value, part) for name, value in params.items() if name in learned}
    latest = {name: value.clone() for name, value in params.items() if name not in learned}
    dtypes = {name: params[name].new_empty(0) for name in moved}
    return state.with_held("mean", moved).with_held("latest", latest).with_held("dtype", dtypes).seen()


def mean_of(state: State, what: str) -> Ensemble:
    """The mean of a state, in the network's own number formats, as an ensemble of one."""
    refuse_empty(state, what)
    return assembled(state, {name: Shared(value) for name, value in means_of(state).items()}, (0,))


def means_of(state: State) -> dict[str, Tensor]:
    """The means, rounded once to the number formats of the network."""
    own = state.held("dtype")
    return {name: value.to(own[name].dtype) for name, value in state.held("mean").items()}


def _towards(mean: Tensor | None, value: Tensor, part: float) -> Tensor:
    value = value.to(wide(value), copy=True)
    return value if mean is None else mean + (value - mean) * part
