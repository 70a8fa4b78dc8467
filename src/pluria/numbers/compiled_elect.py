"""Signs elected over the differences of 16-bit rows from a base, in one pass over memory; loops compiled by Numba.

Part by part, in the first-level cache: differences, of which small ones become zero, votes, means. The sums are those
of `compiled_members.py`, one after the other: the bits are the contract.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from pluria.numbers.compiled import ZERO, fill
from pluria.numbers.compiled_by import compiled
from pluria.numbers.compiled_members import LEAST, add, add_agreeing, keep_from, sign_of
from pluria.numbers.compiled_storage import Array, apart, widen

PART = 1024
"""Elements of a part."""

TOP = np.uint32(0x7FFFFFFF)


@compiled
def mean_of_elected(
    out: Array, given: Any, voices: Array, taken: Array, mass: Array, tie: np.float32, scale: np.float32
) -> None:
    """The base, row K, plus `scale` times the means of those differences that have the sign of the votes."""
    kept = np.empty((mass.size, PART), np.float32)
    room = np.empty((4, PART), np.float32)
    for start in range(0, out.size, PART):
        total = out[start : start + PART]
        n = total.size
        origin, votes, sign, count = room[0][:n], room[1][:n], room[2][:n], room[3][:n]
        trim(kept, origin, given, start)
        vote(votes, kept, voices)
        sign_of(sign, votes, tie)
        fill(total, ZERO)
        fill(count, ZERO)
        for k in range(mass.size):
            add_agreeing(total, count, kept[k][:n], sign, taken[k], mass[k])
        for i in range(n):
            share = count[i]
            share = share if share > LEAST else LEAST
            total[i] = total[i] / share * sign[i] * scale + origin[i]


@compiled
def sum_of_signs(given: Any, voices: Array) -> int:
    """The votes above zero less those below it."""
    kept, room, found = np.empty((voices.size, PART), np.float32), np.empty((2, PART), np.float32), 0
    count = given[0].shape[1]
    for start in range(0, count, PART):
        n = min(PART, count - start)
        origin, votes = room[0][:n], room[1][:n]
        trim(kept, origin, given, start)
        vote(votes, kept, voices)
        for i in range(n):
            found += int(votes[i] > ZERO) - int(votes[i] < ZERO)
    return found


@compiled
def trim(kept: Array, origin: Array, given: Any, start: int) -> None:
    """Differences from the base, which lies in `origin` then; zero those that `keep` makes zero.

    given = rows and the base behind them, whether they are float16, a zero, and `low`, `high`, `cut` of `keep`.
    """
    rows, half, none, low, high, cut = given
    n = origin.size
    base = rows[rows.shape[0] - 1][start : start + n]
    widen(origin, base, half)
    for k in range(kept.shape[0]):
        values, edge = kept[k][:n], min(max(cut[k] - start, 0), n)
        apart(values, rows[k][start : start + n], base, half)
        bits = values.view(np.uint32)
        keep_from(bits[:edge], TOP, none, low[k])
        keep_from(bits[edge:], TOP, none, high[k])


@compiled
def vote(votes: Array, kept: Array, voices: Array) -> None:
    """The sum of the rows, each times its voice; those without one are not read."""
    fill(votes, ZERO)
    for k in range(voices.size):
        if voices[k] != ZERO:
            add(votes, kept[k][: votes.size], voices[k])
