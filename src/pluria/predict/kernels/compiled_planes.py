"""Floor codes and bits from members' codes, on a CPU: a loop compiled by Numba."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pluria.numbers.compiled_by import compiled
from pluria.numbers.threads import share

Codes = NDArray[np.uint8]
Array = NDArray[np.float32]


@compiled
def settle(
    floor: Codes, planes: Any, made: Any, values: Array, scale: Array, top: np.float32, start: int, stop: int
) -> None:
    """Floor codes `[O, D]` and bits `[P, O, D]` of the rows start..stop-1: `values` on whole numbers -top..top.

    made   the members' whole numbers `[K, O, D]` int8, each the floor or one more
    """
    size = values.shape[1] // scale.shape[1]
    for o in range(start, stop):
        codes, row = floor[o], values[o]
        for g in range(scale.shape[1]):
            unit = scale[o, g]
            for i in range(np.uint64(g * size), np.uint64((g + 1) * size)):  # not negative, which would cost a branch
                x = row[i] / unit
                x = -top if x < -top else x
                x = top if x > top else x
                codes[i] = np.uint8(np.floor(x) + top)
        for k in range(made.shape[0]):
            own, bits, at = made[k, o], planes[k // 8, o], np.uint8(k % 8)
            for i in range(row.size):
                bits[i] |= np.uint8(np.int16(own[i]) + np.int16(top) - np.int16(codes[i])) << at


def settled(made: Tensor, values: Tensor, scale: Tensor, top: float) -> tuple[Tensor, Tensor]:
    """Floor codes `[O, D]` and bits `[P, O, D]`, uint8, of members' whole numbers `[K, O, D]` int8.

    values, scale   what they are rounded from, float32 `[O, D]` and `[O, G]`;   top   the code of zero
    """
    floor = torch.empty(values.shape, dtype=torch.uint8)
    bits = torch.zeros(-(-len(made) // 8), *values.shape, dtype=torch.uint8)
    held, width = tuple(map(Tensor.numpy, (floor, bits, made, values, scale))), values.shape[1]

    def rows(start: int, stop: int) -> None:
        settle(*held, np.float32(top), start // width, stop // width)

    share(rows, values.numel(), width)
    return floor, bits
