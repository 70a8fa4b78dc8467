"""A small plain training loop: autocast, accumulation, collectors, and a checkpoint from which it goes on bit for bit.

    for each epoch, each group of `accumulate` batches:  loss backward, step, schedule, collect

It is here for recipes and experiments. Collectors and optimisers need nothing of it: they work in your own loop too.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from pluria.core.calling import place
from pluria.train.collector import Collector
from pluria.train.state import State, unwrapped

Epoch = Callable[[int], Iterable[Any]]
"""The batches of an epoch, a pure function of its number (from 0): resumed runs ask for them again."""

Loss = Callable[[nn.Module, Any], Tensor]
"""(network, batch) -> mean loss, one number with a gradient."""


class Stateful(Protocol):
    """What says and takes its state as modules and optimisers do."""

    def state_dict(self) -> dict[str, Any]:
        """Plain values and tensors."""
        ...

    def load_state_dict(self, state_dict: dict[str, Any]) -> Any:
        """Take them again."""
        ...


@dataclass
class Progress:
    """How far a run is: epochs and batches done, optimiser steps, and the mean loss of each finished epoch."""

    epoch: int = 0
    batch: int = 0
    step: int = 0
    total: float = 0.0
    losses: list[float] = field(default_factory=list)


@dataclass(frozen=True)
class Run:
    """A finished run: the states of its collectors by name, and the mean loss of each epoch."""

    states: Mapping[str, State]
    losses: tuple[float, ...]


def train(
    model: nn.Module,
    epoch: Epoch,
    loss: Loss,
    *,
    optimizer: torch.optim.Optimizer,
    epochs: int,
    scheduler: torch.optim.lr_scheduler.LRScheduler | None = None,
    collectors: Mapping[str, Collector] | None = None,
    before: Callable[[int], None] | None = None,
    beside: Mapping[str, Stateful] | None = None,
    accumulate: int = 1,
    autocast: torch.dtype | None = None,
    clip: float | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
    save_every: int = 0,
    progress: Callable[[int, float], None] | None = None,
) -> Run:
    """Train `model` in place, and fold the run into its collectors' states.

    before       told the number of each step before it is taken, so that a temperature may follow a cycle
    beside       what the checkpoint holds as well, by name: a `SparseTraining`, or whatever else the run changes
    accumulate   batches for one optimiser step; their losses are averaged, a rest at an epoch's end is a step too
    autocast     dtype of the forward pass, such as torch.bfloat16
    clip         largest norm of the gradient
    checkpoint   a file written after each epoch, and every `save_every` steps; where it exists the run goes on from it
    progress     told the epochs done and the epoch's mean loss

    An optimiser with `sampled` (IVON) has its gradients taken inside. In data-parallel runs every process calls this
    alike, and the first one writes.

    Raises ValueError for a loss or gradient that is NaN or Inf, with model, optimiser and checkpoint as they were after
    the step before; for an epoch without batches; for a checkpoint that cannot be read, that lacks a part, or whose
    collectors, names in `beside`, tensors or parameter groups are not those given. Nothing else says of which run a
    checkpoint is: with other batches, rates or losses the run goes on from it unnoticed.
    """
    if epochs < 1 or accumulate < 1:
        raise ValueError(f"epochs and accumulate are 1 or more; got {epochs} and {accumulate}")
    held = dict(collectors or {})
    states = {name: collector.start(model) for name, collector in held.items()}
    parts = _Parts(model, optimizer, scheduler, states, dict(beside or {}), Progress())
    file = None if checkpoint is None else Path(checkpoint)
    if file is not None and file.exists():
        parts.load(file)
    model.train()
    at = parts.progress
    while at.epoch < epochs:
        for group in _groups(epoch(at.epoch), accumulate, at.batch):
            if before is not None:
                before(at.step + 1)
            at.total += _step(model, group, loss, optimizer, autocast, clip, at.step + 1) * len(group)
            if scheduler is not None:
                scheduler.step()
            at.step, at.batch = at.step + 1, at.batch + len(group)
            states.update({name: each.update(states[name], model, at.step) for name, each in held.items()})
            if file is not None and save_every and at.step % save_every == 0:
                parts.save(file)
        if not at.batch:
            raise ValueError(f"epoch {at.epoch} has no batches")
        at.losses.append(at.total / at.batch)
        at.epoch, at.batch, at.total = at.epoch + 1, 0, 0.0
        if file is not None:
            parts.save(file)
        if progress is not None:
            progress(at.epoch, at.losses[-1])
    return Run(states, tuple(at.losses))


def _step(
    model: nn.Module,
    group: list[Any],
    loss: Loss,
    optimizer: torch.optim.Optimizer,
    autocast: torch.dtype | None,
    clip: float | None,
    step: int,
) -> float:
    """One optimiser step on some batches; their mean loss."""
    optimizer.zero_grad()
    total = 0.0
    device = place(model).type
    sampled: Callable[[], AbstractContextManager[None]] = getattr(optimizer, "sampled", nullcontext)
    with _finite(model, step), sampled():
        for batch in group:
            with torch.autocast(device, dtype=autocast) if autocast is not None else nullcontext():
                value = loss(model, batch) / len(group)
            total += value.item()
            # A loss that is not finite makes all gradients so: where they are shared among processes, all refuse alike.
            torch.autograd.backward(value, torch.where(value.isfinite(), 1.0, math.nan).to(value))
        _checked(total, "loss")
        learned = [param for param in model.parameters() if param.grad is not None]
        norm = torch.nn.utils.get_total_norm([param.grad for param in learned if param.grad is not None])
        _checked(norm.item(), "norm of the gradient")
        if clip is not None:
            torch.nn.utils.clip_grads_with_norm_(learned, clip, norm)
    optimizer.step()
    return total


class _NotFinite(ArithmeticError):
    """What is NaN or Inf."""


def _checked(value: float, what: str) -> float:
    if not math.isfinite(value):
        raise _NotFinite(f"{what} is {value}")
    return value


@contextmanager
def _finite(model: nn.Module, step: int) -> Iterator[None]:
    """Nothing is moved by a step that meets NaN: a forward alone moves the statistics of batch norm."""
    before = [(buffer, buffer.clone()) for buffer in model.buffers()]
    try:
        yield
    except _NotFinite as error:
        with torch.no_grad():
            for buffer, value in before:
                buffer.copy_(value)
        raise ValueError(
            f"step {step}: the {error}; model and checkpoint are those of the step before. Look for NaN in the batch, "
            "or take a lower rate"
        ) from None


def _groups(batches: Iterable[Any], size: int, done: int) -> Iterator[list[Any]]:
    left = islice(batches, done, None)
    while group := list(islice(left, size)):
        yield group


@dataclass(frozen=True)
class _Parts:
    """What a checkpoint holds."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    scheduler: torch.optim.lr_scheduler.LRScheduler | None
    states: dict[str, State]
    beside: dict[str, Stateful]
    progress: Progress

    def save(self, file: Path) -> None:
        """Written beside the old one first, so that a killed or full write leaves that. All processes call it."""
        drawn = _everyones((torch.get_rng_state(), torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []))
        if not _rank():
            self._write(file, drawn)
        if _parallel():
            torch.distributed.barrier()

    def _write(self, file: Path, drawn: list[tuple[Tensor, list[Tensor]]]) -> None:
        data = {
            "model": unwrapped(self.model).state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scheduler": None if self.scheduler is None else self.scheduler.state_dict(),
            "states": {name: state.state_dict() for name, state in self.states.items()},
            "beside": {name: each.state_dict() for name, each in self.beside.items()},
            "progress": vars(self.progress),
            "generator": torch.stack([own for own, _ in drawn]),
            "cuda": [own for _, own in drawn],
        }
        fresh = file.with_name(f"{file.name}.new")
        try:
            torch.save(data, fresh)
            os.replace(fresh, file)
        finally:
            fresh.unlink(missing_ok=True)

    def load(self, file: Path) -> None:
        """Put everything back as it was when the file was written."""
        try:
            data = torch.load(file, weights_only=True)
            _check_names("collectors", data["states"], self.states)
            _check_names("parts beside them", data["beside"], self.beside)
            unwrapped(self.model).load_state_dict(data["model"])
            self.optimizer.load_state_dict(data["optimizer"])
            if self.scheduler is not None:
                self.scheduler.load_state_dict(data["scheduler"])
            self.states.update({name: State.from_state_dict(state) for name, state in data["states"].items()})
            for name, each in self.beside.items():
                each.load_state_dict(data["beside"][name])
            vars(self.progress).update(data["progress"])
            # A copy: torch 2.13 crashes on a state that does not begin its storage.
            torch.set_rng_state(data["generator"].view(-1, len(torch.get_rng_state()))[_rank()].clone())
            if any(data["cuda"]):
                torch.cuda.set_rng_state_all(data["cuda"][_rank()])
        except (KeyError, TypeError, ValueError, RuntimeError, EOFError, IndexError) as error:
            raise ValueError(f"{file}: this checkpoint is of another run, or damaged: {error}. Move it away") from error


def _check_names(what: str, saved: Mapping[str, Any], here: Mapping[str, Any]) -> None:
    if set(saved) != set(here):
        raise ValueError(f"it has the {what} {sorted(saved)}, here are {sorted(here)}")


def _everyones(value: Any) -> list[Any]:
    """The value that each process of a data-parallel run has, in the order of their ranks."""
    if not _parallel():
        return [value]
    found: list[Any] = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(found, value)
    return found


def _rank() -> int:
    return torch.distributed.get_rank() if _parallel() else 0


def _parallel() -> bool:
    return torch.distributed.is_available() and torch.distributed.is_initialized()
