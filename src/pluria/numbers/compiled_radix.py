"""The loops behind `radix.py`, compiled by Numba; imported on their first use.

Each is written so that compilers vectorise it, or that no branch depends on what cannot be foreseen.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from pluria.numbers.compiled_by import compiled

PART = 4096
"""Elements that are looked at before they are counted."""

Counts = NDArray[np.int32]
Words = NDArray[Any]
"""Bits of float32 as uint32, or of float64 as uint64; numbers beside them are of the same type, so that none is signed:
indices that may be negative cost a branch. `top` are all bits but the sign."""


@compiled
def count_all(found: Counts, words: Words, top: Any, shift: Any) -> None:
    """Add to `found` `[R, bins]` how often each row of words has each pattern above its lowest `shift` bits."""
    half, other = words.shape[1] // 2, np.empty(found.shape[1], np.int32)
    for r in range(words.shape[0]):
        # Neighbours are often equal; with two tables they need not wait for each other.
        one, first, second = found[r], words[r][:half], words[r][half:]
        other[:] = 0
        for i in range(half):
            one[(first[i] & top) >> shift] += 1
            other[(second[i] & top) >> shift] += 1
        if second.size > half:
            one[(second[-1] & top) >> shift] += 1
        for i in range(one.size):
            one[i] += other[i]


@compiled
def count_within(found: Counts, words: Words, top: Any, wanted: Words, shift: Any, above: Any) -> None:
    """The same for the bits from `shift` to `above`, of those words alone whose bits from there on are `wanted[r]`."""
    own, places, low = np.empty(PART, np.uint8), np.empty(PART, np.uint16), np.uint32(found.shape[1] - 1)
    for r in range(words.shape[0]):
        table, prefix = found[r], wanted[r]
        for start in range(0, words.shape[1], PART):
            part, kept = words[r][start : start + PART], np.uint32(0)
            for i in range(part.size):
                own[i] = (part[i] & top) >> above == prefix
            for i in range(part.size):
                places[kept] = i
                kept += np.uint32(own[i])
            for i in range(np.int64(kept)):
                table[np.uint32(part[places[i]] >> shift) & low] += 1


@compiled
def count_equal(found: NDArray[np.int32], words: Words, top: Any, wanted: Words, shift: Any) -> None:
    """Add to `found` `[R]` how many words of each row have the pattern `wanted[r]` above their lowest `shift` bits."""
    for r in range(words.shape[0]):
        row, prefix, count = words[r], wanted[r], 0
        for i in range(row.size):
            count += (row[i] & top) >> shift == prefix
        found[r] += count
