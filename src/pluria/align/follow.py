"""A network is followed through one batch, operation by operation, to see which axes are tied to which.

Every operation that reaches the tensor library says what it does to axes (`rules.py`); one that has no rule pins all
axes of its inputs, so that what is not understood is not permuted. Nothing is compiled and control flow that looks at
values is followed as it runs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode

from pluria.align.atoms import Atom, Axis, pin
from pluria.align.rules import contractions, name_of, rule_of
from pluria.core.calling import Forward


@dataclass
class Followed:
    """Axes of every tensor that was seen, and what layers read: (number of the operation, axes of what was read)."""

    axes: dict[int, tuple[Axis, ...]] = field(default_factory=dict)
    held: list[Tensor] = field(default_factory=list)
    reads: list[tuple[int, tuple[Axis, ...]]] = field(default_factory=list)

    def put(self, tensor: Tensor, axes: Sequence[Axis]) -> None:
        """Remember the axes of a tensor. It is held, so that no other tensor gets its identity."""
        self.axes[id(tensor)] = tuple(axes)
        self.held.append(tensor)

    def of(self, tensor: Tensor) -> tuple[Axis, ...]:
        """The axes of a tensor; one that comes from outside (an input, a constant) is pinned."""
        if id(tensor) not in self.axes:
            self.put(tensor, [(Atom(size, pinned=True),) for size in tensor.shape])
        return self.axes[id(tensor)]


class _Follow(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Asks the rules for the axes of every result."""

    def __init__(self, followed: Followed) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.followed, self.number = followed, 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        results = [value for value in (out if isinstance(out, tuple | list) else [out]) if isinstance(value, Tensor)]
        name = name_of(func)
        for read in contractions(name, args):
            self.followed.reads.append((self.number, self.followed.of(read)))
            self.number += 1
        for result, axes in zip(results, rule_of(func)(self.followed.of, results, args, kwargs or {}), strict=False):
            if id(result) not in self.followed.axes:
                self.followed.put(result, axes)
        return out


class _Record(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Keeps what layers read, by the numbers that following gave."""

    def __init__(self, wanted: Callable[[int, Tensor], None]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.wanted, self.number = wanted, 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        for read in contractions(name_of(func), args):
            self.wanted(self.number, read)
            self.number += 1
        return func(*args, **(kwargs or {}))


def follow(model: nn.Module, batch: Any, forward: Forward) -> Followed:
    """The axes of a model's tensors (by identity) after one batch has gone through it; its outputs are pinned."""
    followed = Followed()
    model.requires_grad_()
    for tensor in model.state_dict(keep_vars=True).values():
        followed.put(tensor, [(Atom(size),) for size in tensor.shape])
    with plainly(), _Follow(followed):
        out = forward(model, batch)
    for tensor in tensors_of(out):
        for axis in followed.of(tensor):
            pin(axis)
    return followed


def record(model: nn.Module, batch: Any, forward: Forward, wanted: Callable[[int, Tensor], None]) -> None:
    """Run a model on a batch and hand out what its layers read, with the numbers that `follow` gave."""
    model.requires_grad_()
    with plainly(), _Record(wanted):
        forward(model, batch)


@contextmanager
def plainly() -> Iterator[None]:
    """With gradients layers do not take their fused paths, so that each operation is seen."""
    with torch.enable_grad(), sdpa_kernel(SDPBackend.MATH):
        yield


def tensors_of(value: Any) -> Iterator[Tensor]:
    """The tensors in what a model returns."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from tensors_of(item)
    elif isinstance(value, tuple | list):
        for item in value:
            yield from tensors_of(item)
    elif hasattr(value, "__dict__"):
        yield from tensors_of(vars(value))
