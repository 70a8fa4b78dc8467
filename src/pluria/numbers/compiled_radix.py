"""The loops behind `radix.py`, compiled by Numba; imported on their first use.

Each is written so that compilers vectorise it, or that no branch depends on what cannot be foreseen.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pluria.numbers.compiled import compiled

PART = 4096
"""Elements that are looked at before they are counted."""

Words = NDArray[np.int32]
"""Bits of float32, or int64 those of float64; `top` are all bits but the sign."""


@compiled
def count_all(found: NDArray[np.int32], words: Words, top: int, shift: int) -> None:
    """Add to `found` `[bins]` how often the words have each pattern above their lowest `shift` bits."""
    size = found.size
    # Neighbours are often equal; with two tables they need not wait for each other.
    other = np.zeros(size, np.int32)
    half = words.size // 2
    for i in range(half):
        found[(words[i] & top) >> shift] += 1
        other[(words[half + i] & top) >> shift] += 1
    if words.size % 2:
        found[(words[-1] & top) >> shift] += 1
    for i in range(size):
        found[i] += other[i]


@compiled
def count_within(found: NDArray[np.int32], words: Words, top: int, wanted: int, shift: int, bits: int) -> None:
    """The same for the `bits` above `shift`, of those words alone whose bits above these are `wanted`."""
    low = found.size - 1
    held = np.empty(PART, np.int32)
    for start in range(0, words.size, PART):
        kept = 0
        for i in range(start, min(start + PART, words.size)):
            x = words[i] & top
            held[kept] = (x >> shift) & low
            kept += (x >> (shift + bits)) == wanted
        for i in range(kept):
            found[held[i]] += 1


@compiled
def count_equal(words: Words, top: int, wanted: int, shift: int) -> int:
    """How many words have the pattern `wanted` above their lowest `shift` bits."""
    found = 0
    for i in range(words.size):
        found += ((words[i] & top) >> shift) == wanted
    return found
