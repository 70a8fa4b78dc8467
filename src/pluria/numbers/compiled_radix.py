"""The loop behind `radix.py`, compiled by Numba; imported on its first use."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pluria.numbers.compiled import compiled

PART = 4096
"""Elements that are looked at before they are counted."""


@compiled
def count(found: NDArray[np.int64], words: NDArray[np.int32], top: int, wanted: int, shift: int, bits: int) -> None:
    """Add to `found` `[2^bits]` the bits above `shift` of those words whose bits above them are `wanted`.

    `top` are all bits of a word but the sign.
    """
    size = found.size
    # Neighbours are often equal; two tables spare them waiting for each other.
    table = np.zeros((2, size), np.int32)
    held = np.empty(PART, words.dtype)
    for start in range(0, words.size, PART):
        kept = 0
        for i in range(start, min(start + PART, words.size)):
            x = words[i] & top
            held[kept] = (x >> shift) & (size - 1)
            # No branch: which elements are kept cannot be foreseen.
            kept += (x >> (shift + bits)) == wanted
        for i in range(0, kept - 1, 2):
            table[0, held[i]] += 1
            table[1, held[i + 1]] += 1
        if kept % 2:
            table[0, held[kept - 1]] += 1
    for i in range(size):
        found[i] += table[0, i] + table[1, i]
