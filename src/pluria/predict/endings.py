"""What stands behind a layer and goes into its last pass over memory: the sum of a residual block, a ReLU.

A layer hands its output out before scale and shift, where its network's graph says that a sum or a ReLU alone reads
it. Those are noted when they are called, and done with scale and shift at once: relu(scale y + shift + other).
A network may do other than its graph: any other function of torch completes the output before it reads it. What was
overwritten by its own sum or ReLU is gone; reading it again, or keeping it beyond the run, ends in a message.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any
from weakref import ref

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from pluria.predict.fold import Ending

Finish = Callable[[Tensor | None, bool], object]
"""Completes an output in place: plus a tensor like it where there is one, nothing below zero if it is to be cut."""

ADDS = (torch.add, torch.Tensor.add, torch.Tensor.add_)
RELUS = (F.relu, torch.relu, torch.relu_, torch.Tensor.relu, torch.Tensor.relu_)
GONE = "the network reads or keeps an output that its graph shows to be read once, by a sum or a ReLU: use the loop"


@dataclass
class Waiting:
    """An output, what is still to be called with it, and what its sum adds where that was called."""

    y: Tensor
    ending: Ending
    finish: Finish
    other: Tensor | None = None


class Endings(TorchFunctionMode):
    """Outputs of a network's layers that wait while it runs."""

    def __init__(self) -> None:
        super().__init__()
        self.expected = False
        self.waiting: dict[int, Waiting] = {}
        self.spent: dict[int, ref[Tensor]] = {}

    def put_off(self, y: Tensor, ending: Ending, finish: Finish) -> Tensor:
        """`y`, which `finish` completes when it is read."""
        self.waiting[id(y)] = Waiting(y, ending, finish)
        return y

    def around(self, model: nn.Module) -> Callable[..., Any]:
        """A call of the network in which endings are looked out for, where a layer expects one."""
        if not self.expected:
            return model
        for module in model.modules():
            if type(module) is nn.ReLU:
                module.forward = partial(self._relu, module.forward)  # type: ignore[method-assign]

        def call(*args: Any, **named: Any) -> Any:
            try:
                with self:
                    out = model(*args, **named)
                for y in [found.y for found in self.waiting.values()]:
                    self.read(y)
                if any(gone() is not None for gone in self.spent.values()):  # by now only who keeps it has it
                    raise RuntimeError(GONE)
                return out
            finally:
                self.waiting.clear()
                self.spent.clear()

        return call

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if self.waiting or self.spent:
            if func in RELUS and args and (found := self.expecting("relu", args[0])):
                return self._goes_on(found)
            if func in ADDS and len(args) == 2 and not kwargs:
                # What is added to in place is what comes out of it.
                for one, other in (args,) if func is torch.Tensor.add_ else (args, args[::-1]):
                    if (found := self.expecting("sum", one)) and _like(found.y, other):
                        self.read(other)
                        found.other = other
                        return self._goes_on(found)
            for found in [found for found in self.waiting.values() if found.other is not None]:
                self.read(found.y)  # before what it adds could be changed in place
            for part in (*args, *kwargs.values()):
                for leaf in tree_leaves(part) if isinstance(part, list | tuple | dict) else (part,):
                    self.read(leaf)
        return func(*args, **kwargs)

    def _relu(self, plain: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
        """A ReLU's forward that asks for what waits by itself: torch's way to a mode is long."""
        if (found := self.expecting("relu", x)) is None:
            return plain(x)
        with torch._C.DisableTorchFunction():
            return self._goes_on(found)

    def expecting(self, what: str, y: Any) -> Waiting | None:
        """What waits under that tensor, if `what` is to come next."""
        found = self.waiting.get(id(y))
        return found if found is not None and found.ending[:1] == (what,) else None

    def _goes_on(self, found: Waiting) -> Tensor:
        """What comes out of a sum or a ReLU: complete, or waiting for what is behind it."""
        del self.waiting[id(found.y)]
        self.spent[id(found.y)] = ref(found.y)
        found.y = found.y.detach()
        what, *behind = found.ending
        found.ending = tuple(behind)
        if behind:
            self.waiting[id(found.y)] = found
        else:
            found.finish(found.other, what == "relu")
        return found.y

    def read(self, y: Any) -> None:
        """Complete what waits; what became part of something else is gone."""
        if (found := self.waiting.pop(id(y), None)) is not None:
            found.finish(found.other, False)
        elif (gone := self.spent.get(id(y))) is not None and gone() is y:
            raise RuntimeError(GONE)


def _like(y: Tensor, other: Any) -> bool:
    return other is not y and isinstance(other, Tensor) and (other.dtype, other.shape) == (y.dtype, y.shape)
