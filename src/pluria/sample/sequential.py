"""Moments block by block, from the inputs that layers get when what runs before them is rounded already.

    x_1 = what runs before the blocks     x_(b+1) = block b with its weights rounded, on x_b     H = E[x x^T] in block b

Blocks are the members of each `ModuleList` or `Sequential` that run one after another; what runs around them makes
steps of its own. Held are the last outputs of blocks, for each batch and follower, and the moments of one step.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any, NoReturn

import torch
from torch import Tensor, nn

from pluria.core.calling import call, check_batches, moved, place
from pluria.core.ensemble import Ensemble
from pluria.core.family import Family
from pluria.core.model import tensors, ties, working_copy
from pluria.core.rounded import Rounded
from pluria.sample.blocks import Step, all_tensors, steps_of
from pluria.sample.moments import layers_of, watching

Visit = Callable[[int, str, Tensor], Family | None]
"""(number of the follower, name, moments) -> the family whose member 0 the follower goes on with, None for its own."""


@dataclass(frozen=True, eq=False)
class Follower:
    """The network that gives the inputs: member `member` of `ensemble`, with what `visit` gave in its place.

    `held` is what each chain of blocks gave last: {(batch, chain): output}.
    """

    ensemble: Ensemble
    member: int
    made: dict[str, Family] = field(default_factory=dict)
    held: dict[tuple[int, int], Any] = field(default_factory=dict)


def walk(model: nn.Module, inputs: Iterable[Any], followers: Sequence[Follower], visit: Visit) -> None:
    """Call `visit` for every rounded layer in the order of running, with the moments that each follower gives it.

    Layers of one step see rounded steps before theirs, and their own step as it was. Tied weights and those that run in
    several steps come first, with the moments of the model as it is. Raises ValueError where no blocks are found, where
    the outputs use more than what the last blocks give, or where `inputs` is empty.
    """
    check_batches(inputs)
    twin = working_copy(model)
    if hasattr(getattr(twin, "config", None), "use_cache"):
        setattr(twin.config, "use_cache", False)  # noqa: B010  # each batch is run many times, and never continued
    batches = [moved(batch, place(twin), None) for batch in inputs]
    if not batches:
        raise ValueError("no inputs to take moments of; give one batch or more")
    with torch.no_grad():
        steps, several = steps_of(twin, batches[0], _layers(twin, followers[0].ensemble), ties(twin))
        _check(twin, batches[0], steps)
        run = _Run(twin, tensors(model), batches, steps)
        run.several(several, followers, visit)
        for step in steps:
            for number, follower in enumerate(followers):
                run.step(step, number, follower, visit)


class _Run:
    """A working copy that takes each follower in turn through each step."""

    def __init__(self, twin: nn.Module, base: Mapping[str, Tensor], batches: list[Any], steps: list[Step]) -> None:
        self.twin, self.base, self.batches, self.steps = twin, base, batches, steps
        self.own, self.first = tensors(twin), ties(twin)
        inside = {name for step in steps for name in _names(twin, step.block)}
        self.outside = [name for name in self.own if name not in inside]
        self.holder: Follower | None = None

    def several(self, names: Sequence[str], followers: Sequence[Follower], visit: Visit) -> None:
        """Visit weights that run in several places, with moments of the network as it is."""
        if names:
            found = self._moments(names, lambda batch: call(self.twin, batch))
            for number, follower in enumerate(followers):
                self._visit(names, found, number, follower, visit)

    def step(self, step: Step, number: int, follower: Follower, visit: Visit) -> None:
        """Visit the layers of a step for one follower, and let its activations go on through it."""
        if self.holder is not follower:
            self._write(follower, self.outside)
            self.holder = follower
        inside = _names(self.twin, step.block) or list(step.names)
        if step.names:
            self._write(follower, inside, waiting=step.names)
            at = iter(range(len(self.batches)))
            found = self._moments(
                step.names, lambda batch: _forward(self.twin, batch, self.steps, step, follower, next(at))
            )
            self._visit(step.names, found, number, follower, visit)
        self._write(follower, inside)
        for place_, batch in enumerate(self.batches if step.block is not None else []):
            follower.held[place_, step.chain] = _forward(self.twin, batch, self.steps, step, follower, place_)

    def _moments(self, names: Sequence[str], forward: Callable[[Any], Any]) -> dict[str, Tensor]:
        layers = {name: layer for name, layer in layers_of(self.twin).items() if self.first[name] in names}
        with watching(layers, self.first) as sums:
            for batch in self.batches:
                forward(batch)
        return {name: total.mean() for name, total in sums.items() if total.count}

    def _visit(
        self, names: Sequence[str], found: Mapping[str, Tensor], number: int, follower: Follower, visit: Visit
    ) -> None:
        for name in names:
            if name in found and (made := visit(number, name, found[name])) is not None:
                follower.made[name] = made

    def _write(self, follower: Follower, names: Sequence[str], waiting: Sequence[str] = ()) -> None:
        """Put a follower's tensors into the working copy; `waiting` are as in the model."""
        for name in names:
            first = self.first[name]
            if first in waiting:
                self.own[name].copy_(self.base[name])
            elif first in follower.made:
                follower.made[first].write(0, self.own[name])
            else:
                follower.ensemble.families[name].write(follower.member, self.own[name])


class _Reached(Exception):
    """The forward has come as far as it should; `output` is what the block gave."""

    def __init__(self, output: Any) -> None:
        self.output = output


def _forward(twin: nn.Module, batch: Any, steps: Sequence[Step], step: Step, follower: Follower, place_: int) -> Any:
    """What the block of `step` gives; of a step without a block, the forward up to the next block, or its outputs."""
    with ExitStack() as changed:
        for one in steps:
            if one.block is None or one.before > step.before:
                continue
            if one.before < step.before:
                changed.enter_context(_instead(one.block, _giving(follower.held[place_, one.chain])))
            elif step.block is None:
                changed.enter_context(_instead(one.block, _stop))
            else:
                changed.callback(one.block.register_forward_hook(_stop_after).remove)
        try:
            return call(twin, batch)
        except _Reached as reached:
            return reached.output


def _giving(output: Any) -> Callable[..., Any]:
    # A copy, since the next block may work in place.
    return lambda *args, **named: copy.deepcopy(output)


def _stop(*args: Any, **named: Any) -> NoReturn:
    raise _Reached(None)


def _stop_after(module: nn.Module, args: Any, output: Any) -> NoReturn:
    raise _Reached(output)


@contextmanager
def _instead(block: nn.Module, forward: Callable[..., Any]) -> Iterator[None]:
    """Run `forward` in place of a block's own."""
    kept = block.__dict__.get("forward")
    block.__dict__["forward"] = forward
    try:
        yield
    finally:
        del block.__dict__["forward"]
        if kept is not None:
            block.__dict__["forward"] = kept


def _check(twin: nn.Module, batch: Any, steps: Sequence[Step]) -> None:
    """Raise ValueError unless the blocks run one at a time give what the whole network gives."""
    plain = Follower(Ensemble({}, (0,)), 0)
    for step in steps:
        output = _forward(twin, batch, steps, step, plain, 0)
        if step.block is not None:
            plain.held[0, step.chain] = output
    for one, other in zip(all_tensors(call(twin, batch)), all_tensors(output), strict=True):
        if one.shape != other.shape or not torch.allclose(one, other, rtol=1e-3, atol=1e-5, equal_nan=True):
            raise ValueError(
                "the blocks of the network cannot be run one at a time: its outputs use more than what the last blocks "
                'give. Take the moments of the whole network, follow="model"'
            )


def _layers(model: nn.Module, ensemble: Ensemble) -> dict[str, nn.Module]:
    """Layers with moments whose weights are rounded."""
    found = layers_of(model)
    return {name: layer for name, layer in found.items() if isinstance(ensemble.families.get(name), Rounded)}


def _names(model: nn.Module, block: nn.Module | None) -> list[str]:
    """State-dict names of a block."""
    if block is None:
        return []
    prefix = next(name for name, module in model.named_modules() if module is block)
    return [f"{prefix}.{name}" for name in block.state_dict()]
