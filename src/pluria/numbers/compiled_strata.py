"""What sixteen stratified members of a weight have in common, in 16 bits, and each of them from it; see `strata.py`.

bits 0..7  code of the floor     8..11  how many of sixteen round up     12..15  where the first member's word lies
"""

from __future__ import annotations

import numpy as np

from pluria.numbers.compiled_by import compiled
from pluria.numbers.compiled_philox import Words
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
