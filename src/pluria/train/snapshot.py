"""Points of a run, kept one by one: snapshots at the ends of cycles, late checkpoints, the last of several runs.

    members = (w after step t for each t that `when` names), the latest `keep` of them

With a cosine cycle they are a snapshot ensemble (SSE), with a triangle a fast geometric ensemble (FGE), behind Langevin
noise samples of cyclical SG-MCMC. What they cost is the run.

Sources: Huang et al., "Snapshot Ensembles: Train 1, Get M for Free", ICLR 2017; Garipov et al., NeurIPS 2018; Zhang et
al., "Cyclical Stochastic Gradient MCMC for Bayesian Deep Learning", ICLR 2020.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from pluria.core.ensemble import Ensemble
from pluria.core.family import Stacked
from pluria.train.collector import When, always
from pluria.train.state import State, assembled, looked_at, refuse_empty, started


@dataclass(frozen=True)
class Snapshots:
    """The networks after the steps that `when` names, buffers included; `keep` of them, the latest, or all."""

    when: When = always
    keep: int | None = None

    def __post_init__(self) -> None:
        if self.keep is not None and self.keep < 1:
            raise ValueError(f"keep 1 snapshot or more, or all with None; got {self.keep}")

    def start(self, model: nn.Module) -> State:
        """The state before the first step."""
        return started(model)

    def update(self, state: State, model: nn.Module, step: int) -> State:
        """The state after `step` steps."""
        if not self.when(step):
            return state
        state, params = looked_at(state, model, step)
        if params is None:
            return state
        slot = state.count if self.keep is None else state.count % self.keep
        return state.with_held(str(slot), {name: value.clone() for name, value in params.items()}).seen()

    def ensemble(self, state: State) -> Ensemble:
        """The snapshots in the order of the run."""
        refuse_empty(state, "snapshot")
        first = 0 if self.keep is None else max(0, state.count - self.keep)
        slots = [number if self.keep is None else number % self.keep for number in range(first, state.count)]
        held = [state.held(str(slot)) for slot in slots]
        made = {name: Stacked(torch.stack([each[name] for each in held])) for name in held[0]}
        return assembled(state, made, tuple(range(len(held))))
