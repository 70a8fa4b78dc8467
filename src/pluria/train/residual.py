"""A residual network as an ensemble of paths: what each order of its expansion is, and what a dropped block costs.

    x + l sum_i f_i(x) + l^2 sum_{j<i} f_i'(x) f_j(x) + O(l^3)      for x_{i} = x_{i-1} + l f_i(x_{i-1})

The truth of the second order needs smooth blocks; with ReLU it does not hold at its kinks. A diagnostic, no method.

Source: Veit, Wilber and Belongie, "Residual Networks Behave Like Ensembles of Relatively Shallow Networks", NeurIPS
2016, for dropped blocks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from pluria.train.forward import directional

Block = Callable[[Tensor], Tensor]


def residual(blocks: Sequence[Block], x: Tensor, *, scale: float = 1.0) -> Tensor:
    """The residual network itself: x_i = x_{i-1} + scale f_i(x_{i-1})."""
    for block in blocks:
        x = x + scale * block(x)
    return x


def expansion(blocks: Sequence[Block], x: Tensor, *, scale: float = 1.0, order: int = 2) -> Tensor:
    """Its expansion up to `order` 0, 1 or 2 in the scale."""
    if order not in (0, 1, 2):
        raise ValueError(f"the expansion has orders 0, 1 and 2; got {order}")
    value = x
    before = torch.zeros_like(x)
    for block in blocks if order else ():
        first, second = directional(block, (x,), (before,))
        value = value + scale * first + (scale**2 * second if order == 2 else 0)
        before = before + first
    return value


@contextmanager
def dropped(block: nn.Module) -> Iterator[None]:
    """Inside, `block` hands its first input on unchanged, as if a residual block were its identity path alone.

    Its outputs must have the shape of its inputs; a block that changes it is refused when it is called.
    """

    def pass_on(module: nn.Module, args: tuple[Any, ...], output: Any) -> Any:
        if not isinstance(output, Tensor) or output.shape != args[0].shape:
            raise ValueError(f"{type(module).__name__} changes the shape of its input, so it cannot be dropped")
        return args[0]

    handle = block.register_forward_hook(pass_on)
    try:
        yield
    finally:
        handle.remove()
