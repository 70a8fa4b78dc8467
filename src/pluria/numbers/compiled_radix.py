"""The loops behind `radix.py`, compiled by Numba; imported on their first use.

Each is written so that compilers vectorise it, or that no branch depends on what cannot be foreseen.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from pluria.numbers.compiled_by import compiled
from pluria.numbers.compiled_storage import Patterns, apart

PART = 4096
"""Elements that are looked at before they are counted, a multiple of eight."""

ONE, NONE = np.int32(1), np.int32(0)

Counts = NDArray[np.int32]
Marks = NDArray[np.uint8]
Words = NDArray[Any]
"""Bits of float32 as uint32, or of float64 as uint64; numbers beside them are of the same type, so that none is signed:
indices that may be negative cost a branch. `top` are all bits but the sign. Or, with a `base`, patterns of 16 bits,
whose differences from it are counted, made in `room` `[PART]`; `half` says of float16 instead of bfloat16."""


@compiled
def count_all(found: Counts, room: Words, rows: Words, base: Patterns | None, half: bool, top: Any, shift: Any) -> None:
    """Add to `found` `[R, bins]` how often each row of words has each pattern above its lowest `shift` bits."""
    other = np.empty(found.shape[1], np.int32)
    for r in range(rows.shape[0]):
        # Neighbours are often equal; with two tables they need not wait for each other.
        one = found[r]
        other[:] = 0
        for start in range(0, rows.shape[1], PART):
            part = words_of(room, rows[r][start : start + PART], base, half, start)
            middle = part.size // 2
            first, second = part[:middle], part[middle:]
            for i in range(middle):
                one[(first[i] & top) >> shift] += 1
                other[(second[i] & top) >> shift] += 1
            if second.size > middle:
                one[(second[-1] & top) >> shift] += 1
        for i in range(one.size):
            one[i] += other[i]


@compiled
def count_within(
    found: Counts,
    room: Words,
    rows: Words,
    base: Patterns | None,
    half: bool,
    top: Any,
    least: Words,
    most: Words,
    shift: Any,
) -> None:
    """The same for the bits above `shift`, as many as there are bins, of those words alone that lie within
    least[r]..most[r]."""
    own, low = np.zeros(PART, np.uint8), np.uint32(found.shape[1] - 1)
    eights = own.view(np.uint64)
    for r in range(rows.shape[0]):
        table = found[r]
        for start in range(0, rows.shape[1], PART):
            part = words_of(room, rows[r][start : start + PART], base, half, start)
            mark(own, part, top, least[r], most[r])
            for at in range((part.size + 7) // 8):
                if eights[at] != 0:  # as a rule few words are wanted
                    for i in range(8 * at, min(8 * at + 8, part.size)):
                        table[np.uint32(part[i] >> shift) & low] += own[i]


@compiled
def words_of(room: Words, part: Words, base: Patterns | None, half: bool, start: int) -> Words:
    """Words as they are; of patterns of 16 bits, those of their differences from the base, which lie in `room`."""
    words: Words = room[: part.size]
    if base is None:
        words = part.view(room.dtype)
    else:
        apart(words.view(np.float32), part, base[start : start + part.size], half)
    return words


@compiled
def mark(own: Marks, part: Words, top: Any, least: Any, most: Any) -> None:
    """1 for words within least..most, else 0."""
    for i in range(part.size):
        word = part[i] & top
        own[i] = (word >= least) & (word <= most)


@compiled
def count_equal(
    found: Counts, room: Words, rows: Words, base: Patterns | None, half: bool, top: Any, least: Words, most: Words
) -> None:
    """Add to `found` `[R]` how many words of each row lie within least[r]..most[r]."""
    for r in range(rows.shape[0]):
        for start in range(0, rows.shape[1], PART):
            part = words_of(room, rows[r][start : start + PART], base, half, start)
            found[r] += count_part(part, top, least[r], most[r])


@compiled
def count_part(part: Words, top: Any, least: Any, most: Any) -> np.int32:
    """How many of these words; cast at each step, since Numba would count in 64 bits, half as many at a time."""
    count = np.int32(0)
    for i in range(part.size):
        word = part[i] & top
        count = np.int32(count + (ONE if (word >= least) & (word <= most) else NONE))
    return count
