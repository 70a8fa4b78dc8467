"""What a collector has gathered of a run so far: a value that saves and loads.

tensors   "mean/layer.weight" and the like: what is held, by its kind and the tensor's name
count     how many looks at the run went in
skipped   steps at which the parameters were not finite, so that nothing went in
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from pluria.core.ensemble import Ensemble
from pluria.core.family import Family, Shared
from pluria.core.model import ties
from pluria.core.params import finite

WRAPPERS = ("module", "_orig_mod")
"""Where data-parallel and compiled modules keep the network they wrap."""


@dataclass(frozen=True)
class State:
    """A collector's state after some steps; `ties` maps each name of the network to that its tensor is held under."""

    tensors: Mapping[str, Tensor] = field(default_factory=dict)
    ties: Mapping[str, str] = field(default_factory=dict)
    count: int = 0
    skipped: tuple[int, ...] = ()

    def state_dict(self) -> dict[str, Any]:
        """Plain values, which `torch.save` writes and `torch.load(weights_only=True)` reads."""
        return {"tensors": dict(self.tensors), "ties": dict(self.ties), "count": self.count, "skipped": [*self.skipped]}

    @staticmethod
    def from_state_dict(saved: Mapping[str, Any]) -> State:
        """The state that `state_dict` was asked of, bit for bit."""
        try:
            return State(dict(saved["tensors"]), dict(saved["ties"]), int(saved["count"]), tuple(saved["skipped"]))
        except (KeyError, TypeError) as error:
            raise ValueError(
                f"this is no saved state of a collector: {error!r}; give what `state_dict` returned"
            ) from None

    def held(self, kind: str) -> dict[str, Tensor]:
        """What is held of one kind, by the tensor's name."""
        start = f"{kind}/"
        return {name.removeprefix(start): value for name, value in self.tensors.items() if name.startswith(start)}

    def with_held(self, kind: str, values: Mapping[str, Tensor]) -> State:
        """The same state with some tensors of one kind put in or replaced."""
        return replace(self, tensors={**self.tensors, **{f"{kind}/{name}": value for name, value in values.items()}})

    def seen(self) -> State:
        """One more look went in."""
        return replace(self, count=self.count + 1)


def started(model: nn.Module) -> State:
    """The state before the first look, which knows the network's tied names."""
    return State(ties=ties(unwrapped(model)))


def looked_at(state: State, model: nn.Module, step: int) -> tuple[State, dict[str, Tensor] | None]:
    """The network's tensors by the names they are held under; None where one is not finite, and the step is noted.

    Buffers may be masks for attention; a parameter with -Inf has no mean.
    """
    params, learned = tensors_of(model, state), trainable(model)
    if all(
        bool(torch.isfinite(value).all()) if name in learned else finite(value)
        for name, value in params.items()
        if value.is_floating_point()
    ):
        return state, params
    return replace(state, skipped=(*state.skipped, step)), None


def tensors_of(model: nn.Module, state: State) -> dict[str, Tensor]:
    """The network's own tensors, detached, one for each that is tied. Raises ValueError for another network."""
    own = unwrapped(model).state_dict(keep_vars=True)
    if set(own) != set(state.ties):
        first = sorted(set(own) ^ set(state.ties))[0]
        raise ValueError(
            f"the state was started on another network: {first!r} is a tensor of only one of the two. Give the network "
            "that `start` was given"
        )
    return {name: own[name].detach() for name in dict.fromkeys(state.ties.values())}


def wide(value: Tensor) -> torch.dtype:
    """What moments of a tensor are kept in: float32 where it has 16 or 32 bits."""
    return torch.float64 if value.dtype == torch.float64 else torch.float32


def trainable(model: nn.Module) -> set[str]:
    """Names of the floating parameters; the other tensors of a state dict are buffers."""
    named = unwrapped(model).named_parameters(remove_duplicate=False)
    return {name for name, value in named if value.is_floating_point()}


def assembled(state: State, made: Mapping[str, Family], members: tuple[int, ...]) -> Ensemble:
    """An ensemble of `made`, and of the latest value of every other tensor; tied names share their family."""
    latest: dict[str, Family] = {name: Shared(value) for name, value in state.held("latest").items()}
    return Ensemble({name: {**latest, **made}[held] for name, held in state.ties.items()}, members)


def refuse_empty(state: State, what: str) -> None:
    """Raise ValueError where nothing was collected."""
    if not state.count:
        lost = f"; at {len(state.skipped)} steps the parameters were not finite" if state.skipped else ""
        raise ValueError(
            f"no {what} was collected{lost}. Call `update` after each optimiser step, and look at `when`: it chooses"
        )


def unwrapped(model: nn.Module) -> nn.Module:
    """The network inside data-parallel and compiled wrappers."""
    kinds = (nn.DataParallel, nn.parallel.DistributedDataParallel)
    while True:
        name = WRAPPERS[0] if isinstance(model, kinds) else WRAPPERS[1]
        inner = getattr(model, name, None)
        if not isinstance(inner, nn.Module):
            return model
        model = inner
