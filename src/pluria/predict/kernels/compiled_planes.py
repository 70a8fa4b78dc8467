"""Floor codes and bits from members' codes, on a CPU: a loop compiled by Numba."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pluria.numbers.compiled_by import compiled
from pluria.numbers.threads import share

PART = 4096
"""Elements that are looked at more than once while they are near."""

Codes = NDArray[np.uint8]


@compiled
def settle(floor: Codes, planes: Any, made: Any, top: int, start: int, stop: int) -> None:
    """Floor codes `[n]` and bits `[P, n]` of the elements start..stop-1 of members' whole numbers `[K, n]`, int8.

    The floor is the least of the members: where all of them were rounded up, it is what they have in common.
    """
    low = np.empty(PART, np.int8)
    for a in range(start, stop, PART):
        b = min(a + PART, stop)
        least, codes = low[: b - a], floor[a:b]
        for i in range(least.size):
            least[i] = made[0, a + i]
        for k in range(1, made.shape[0]):
            row = made[k, a:b]
            for i in range(least.size):
                least[i] = min(least[i], row[i])
        for i in range(least.size):
            codes[i] = np.uint8(np.int16(least[i]) + np.int16(top))
        for k in range(made.shape[0]):
            row, bits, at = made[k, a:b], planes[k // 8, a:b], np.uint8(k % 8)
            for i in range(least.size):
                bits[i] |= np.uint8(row[i] - least[i]) << at


def settled(made: Tensor, top: int) -> tuple[Tensor, Tensor]:
    """Floor codes `[n]` and bits `[P, n]`, uint8, of members' whole numbers `[K, n]` int8, `top` the code of zero."""
    floor = torch.empty(made.shape[1], dtype=torch.uint8)
    bits = torch.zeros(-(-len(made) // 8), made.shape[1], dtype=torch.uint8)
    share(partial(settle, floor.numpy(), bits.numpy(), made.numpy(), top), made.shape[1], PART)
    return floor, bits
