"""What sixteen stratified members of a weight have in common, in 16 bits, and each of them from it; see `strata.py`.

bits 0..7  code of the floor     8..11  how many of sixteen round up     12..15  where the first member's word lies
"""

from __future__ import annotations

from typing import Any

import numpy as np

from pluria.numbers.compiled import BLOCK, ahead, long, put, read, spread
from pluria.numbers.compiled import ONE as UNIT
from pluria.numbers.compiled_by import compiled
from pluria.numbers.compiled_philox import Address, Words, fill_words
from pluria.numbers.compiled_storage import Array, Patterns

CODE, STRATUM, BEHIND = np.uint32(0xFF), np.uint32(0xF), np.uint32(0xFFFFF)
FOUR, EIGHT, TWELVE, TWENTY = np.uint32(4), np.uint32(8), np.uint32(12), np.uint32(20)
NONE, ONE, WORDS = np.uint32(0), np.uint32(1), np.float32(2.0**24)


@compiled
def note(held: Patterns, values: Array, words: Words, mask: np.uint32, s: Array, z: Array, span: np.float32) -> bool:
    """Note weights on the whole numbers -z..span-z. If all sixteen round up, none does from the next code.

    Returns whether all are numbers.
    """
    numbers = True
    for i in range(held.size):
        x = values[i] / s[i]
        numbers &= x == x
        x = -z[i] if x < -z[i] else x
        x = span - z[i] if x > span - z[i] else x
        low = np.floor(x)
        bound = np.uint32(np.int32(np.ceil((x - low) * WORDS)))  # u < p where the word is below it
        word = np.uint32(np.uint32(words[i] >> EIGHT) ^ mask)
        last = ONE if np.uint32(word & BEHIND) < np.uint32(bound & BEHIND) else NONE
        up = np.uint32(np.uint32(bound >> TWENTY) + last)
        code = np.uint32(np.uint32(np.int32(low + z[i])) + np.uint32(up >> FOUR))
        rest = np.uint32(np.uint32(np.uint32(up & STRATUM) << EIGHT) | np.uint32(np.uint32(word >> TWENTY) << TWELVE))
        held[i] = np.uint16(np.uint32(code | rest))
    return numbers


@compiled
def picked(noted: np.uint16, stratum: np.uint32, z: np.float32) -> np.float32:
    """The member of a stratum: floor or the next, on the whole numbers."""
    x = np.uint32(noted)
    own = np.uint32(np.uint32(x >> TWELVE) ^ stratum)
    up = ONE if own < np.uint32(np.uint32(x >> EIGHT) & STRATUM) else NONE
    return np.float32(np.int32(np.uint32(np.uint32(x & CODE) + up))) - z


@compiled
def pick(out: Array, held: Patterns, stratum: np.uint32, t: Array, z: Array) -> None:
    """Members of a stratum, times `t`."""
    for i in range(out.size):
        out[i] = picked(held[i], stratum, z[i]) * t[i]


@compiled
def pick_run(out: Array, held: Patterns, stratum: np.uint32, t: np.float32, z: np.float32) -> None:
    """`pick` where all have one scale."""
    for i in range(out.size):
        out[i] = picked(held[i], stratum, z) * t


@compiled
def note_range(memory: Any, grid: Any, notes: Any, address: Address, start: int, stop: int) -> None:
    """Note the blocks of start..stop-1 that do not serve this member yet; `start` is a multiple of BLOCK."""
    _, _, _, source, source16, half, _ = memory
    scale, zero, layout, _, rule = grid
    held, serves = notes
    words, wide = np.empty(BLOCK, np.uint32), np.empty(BLOCK, np.float32)
    s, z = np.empty(BLOCK, np.float32), np.empty(BLOCK, np.float32)
    behind = np.uint32(np.uint32(address[5]) & BEHIND)
    for a in range(start, stop, BLOCK):
        b = min(a + BLOCK, stop)
        if serves[a // BLOCK] != behind:
            spread(s, z, scale, zero, layout, a, b - a)
            fill_words(words[: (b - a + 7) // 8 * 8], np.uint64(a // 4), address)
            values = read(wide, source, source16, half, a, b)
            if not note(held[a:b], values, words, behind, s, z, rule[0]):
                raise ValueError("a weight is NaN that was a number when its grid was fitted; draw the members anew")
            serves[a // BLOCK] = behind


@compiled
def round_noted(memory: Any, grid: Any, notes: Any, address: Address, unit: bool, start: int, stop: int) -> None:
    """`round_range` for integers from `notes` (`strata.py`): held, and what each block of it serves."""
    note_range(memory, grid, notes, address, start, stop)  # a pass of its own: both at once leave the cache
    target, _, _, _, _, _, order = memory
    scale, zero, layout, _, _ = grid
    held, stratum = notes[0], np.uint32(np.uint32(address[5]) >> TWENTY)
    s, z, known = np.empty(BLOCK, np.float32), np.empty(BLOCK, np.float32), start
    rounded, narrowed, ones = np.empty(BLOCK, np.float32), np.empty(BLOCK, np.uint16), np.ones(BLOCK, np.float32)
    straight, runs, a, b = order.size == 0 and target.size > 0, long(layout), start, start
    while b < stop:
        a = b
        b, at, known = ahead(s, z, scale, zero, layout, runs, a, stop, known)
        out = target[a:b] if straight else rounded[: b - a]
        if runs:
            pick_run(out, held[a:b], stratum, UNIT if unit else scale[at], zero[at])
        else:
            pick(out, held[a:b], stratum, ones if unit else s, z)
        put(memory, out, narrowed, a, unit)
