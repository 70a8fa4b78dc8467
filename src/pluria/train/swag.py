"""SWAG: a Gaussian around the mean of a run's iterates, with their own variances and a low-rank part.

    w_m = mean + sqrt(s) (sd z1 + sum_r d_r z2_r / sqrt(R - 1))        s = 1 without the low-rank part, 1/2 with it

`sd` is the iterates' standard deviation weight by weight, `d_r` the last R iterates less the mean at their time. One
draw of z2 serves all tensors: it ties layers together. With fewer than two columns the low-rank part is left out.
Draws need their batch-norm statistics refreshed plainly, on inputs of the training pipeline.

Sources: Maddox et al., "A Simple Baseline for Bayesian Uncertainty in Deep Learning", NeurIPS 2019; several runs
together: Wilson and Izmailov, "Bayesian Deep Learning and a Probabilistic Perspective of Generalization", NeurIPS 2020.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn

from pluria.core.ensemble import Ensemble, join
from pluria.core.family import Family, Shared
from pluria.core.gaussian import Gaussian
from pluria.numbers.key import Key, refuse_collisions
from pluria.train.average import averaged, means_of
from pluria.train.collector import When, always
from pluria.train.state import State, assembled, refuse_empty, started, tensors_of


@dataclass(frozen=True)
class SWAG:
    """Mean, variances (by Welford's update) and the last `rank` deviations of the iterates that `when` names."""

    rank: int = 20
    when: When = always

    def __post_init__(self) -> None:
        if self.rank < 0:
            raise ValueError(f"a rank is 0 (diagonal) or more; got {self.rank}")

    def start(self, model: nn.Module) -> State:
        """The state before the first step."""
        return started(model)

    def update(self, state: State, model: nn.Module, step: int) -> State:
        """The state after `step` steps."""
        if not self.when(step):
            return state
        after = averaged(state, model, step, lambda seen: 1 / (seen + 1))
        return after if after.count == state.count else self._spread(state, after, model)

    def _spread(self, before: State, after: State, model: nn.Module) -> State:
        """`after` with the new iterate's part in the variances, and its deviation among the columns."""
        old, new, squares = before.held("mean"), after.held("mean"), before.held("squares")
        own = {name: value.to(new[name].dtype) for name, value in tensors_of(model, after).items() if name in new}
        columns = {name: own[name] - new[name] for name in new}
        grown = {n: squares.get(n, 0) + (own[n] - old.get(n, own[n])) * columns[n] for n in new}
        after = after.with_held("squares", grown)
        return after.with_held(f"column{before.count % self.rank}", columns) if self.rank else after

    def ensemble(self, state: State, *, members: int = 30, scale: float | None = None, key: Key | int = 0) -> Ensemble:
        """`members` draws; `scale` is s, 1/2 with a low-rank part and 1 without it unless given; 0 gives the mean."""
        refuse_empty(state, "iterate")
        key = key if isinstance(key, Key) else Key(key)
        count = min(state.count, self.rank)
        columns = [state.held(f"column{number}") for number in range(count)] if count > 1 else []
        s = scale if scale is not None else 0.5 if columns else 1.0
        if not 0 <= s < math.inf:
            raise ValueError(f"a scale is 0 or more; got {scale}")
        means, squares = means_of(state), state.held("squares")
        refuse_collisions(means)
        made: dict[str, Family] = {}
        for name, mean in means.items():
            std = (squares[name].clamp(min=0) * (s / state.count)).sqrt()
            wide = [column[name] * math.sqrt(s / (count - 1)) for column in columns]
            made[name] = Gaussian(Shared(mean), std, name, key, torch.stack(wide) if wide else None)
        return assembled(state, made, tuple(range(members)))


def multi_swag(collector: SWAG, states: Sequence[State], *, members: int = 10, key: Key | int = 0) -> Ensemble:
    """`members` draws around each of several independent runs, end to end."""
    if not states:
        raise ValueError("no runs to draw around; give the states of one or more")
    key = key if isinstance(key, Key) else Key(key)
    drawn = [collector.ensemble(s, members=members, key=key.fold(f"run {i}")) for i, s in enumerate(states)]
    return join(*drawn)
