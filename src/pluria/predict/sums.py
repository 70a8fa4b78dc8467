"""Sums that layers take into their last pass over memory, as residual blocks have them.

A layer whose output nothing but a sum reads hands it out before its scale and shift. The sum, when it is called,
lets the layer do all at once: relu(scale y + shift + other). Whatever else is called with such an output finishes it
first.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

Finish = Callable[[Tensor | None], Tensor]
"""Makes of an output that waits what the layer gives, plus another tensor where there is one."""

ADDS = (torch.add, torch.Tensor.add, torch.Tensor.add_)


class Sums(TorchFunctionMode):
    """Outputs that wait for their sums while one network runs."""

    def __init__(self) -> None:
        super().__init__()
        self.expected = False
        self.waiting: dict[int, tuple[Tensor, Finish]] = {}

    def put_off(self, y: Tensor, finish: Finish) -> Tensor:
        """`y`, which `finish` makes complete when somebody reads it."""
        self.waiting[id(y)] = y, finish
        return y

    def around(self, model: Callable[..., Any]) -> Callable[..., Any]:
        """A call of the network in which sums are looked out for, where a layer expects one."""
        if not self.expected:
            return model

        def call(*args: Any, **named: Any) -> Any:
            try:
                with self:
                    return model(*args, **named)
            finally:
                self._finish(list(self.waiting))

        return call

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if not self.waiting:
            return func(*args, **(kwargs or {}))
        if func in ADDS and len(args) == 2 and not kwargs and args[0] is not args[1]:
            # What is added to in place is what comes out of it.
            owner = next((i for i in range(1 + (func is not torch.Tensor.add_)) if id(args[i]) in self.waiting), None)
            if owner is not None:
                self._finish([id(args[1 - owner])])
                return self.waiting.pop(id(args[owner]))[1](args[1 - owner])
        self._finish([id(leaf) for leaf in tree_leaves((args, kwargs))])
        return func(*args, **(kwargs or {}))

    def _finish(self, keys: list[int]) -> None:
        for key in keys:
            if key in self.waiting:
                self.waiting.pop(key)[1](None)
