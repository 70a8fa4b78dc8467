"""The loops behind `members.py`, compiled by Numba; imported on their first use.

Each goes over the elements in parts that stay in the first-level cache, in a form that compilers vectorise. The sums
are those of the torch references, in the same order and without fused steps: the bits are the contract.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from pluria.numbers.compiled import ZERO, fill
from pluria.numbers.compiled_by import compiled
from pluria.numbers.compiled_storage import Array, Patterns, apart, widen

PART = 2048
"""Elements of a part."""

SIGN, UNIT, NONE = np.uint32(0x80000000), np.uint32(0x3F800000), np.uint32(0)
LEAST = np.float32(1e-30)

Bits = NDArray[Any]
"""float32 as uint32, or float64 as uint64."""


@compiled
def all_below(rows: Patterns, exponent: np.uint16) -> bool:
    """Whether no pattern of 16 bits has all bits of the exponent: whether all are finite."""
    most = np.uint16(0)
    for k in range(rows.shape[0]):
        most = max(most, largest(rows[k], exponent))
    return bool(most < exponent)


@compiled
def largest(row: Patterns, exponent: np.uint16) -> np.uint16:
    """The largest exponent of a row, in the bits of `exponent`."""
    most = np.uint16(0)
    for i in range(row.size):
        own = np.uint16(row[i] & exponent)
        most = own if own > most else most
    return most


@compiled
def sum_narrow(out: Array, rows: Patterns, weights: Array, half: bool) -> None:
    """sum_k w_k x_k of rows `[K, n]` of bfloat16 or, if `half`, of float16."""
    wide = np.empty(PART, np.float32)
    for start in range(0, out.size, PART):
        total = out[start : start + PART]
        values = wide[: total.size]
        fill(total, ZERO)
        for k in range(weights.size):
            widen(values, rows[k][start : start + PART], half)
            add(total, values, weights[k])


@compiled
def sum_wide(out: Array, rows: Array, weights: Array) -> None:
    """sum_k w_k x_k of rows `[K, n]` of float32."""
    for start in range(0, out.size, PART):
        total = out[start : start + PART]
        fill(total, ZERO)
        for k in range(weights.size):
            add(total, rows[k][start : start + PART], weights[k])


@compiled
def add(total: Array, values: Array, weight: np.float32) -> None:
    """total += values * weight."""
    for i in range(total.size):
        total[i] += values[i] * weight


@compiled
def subtract(out: Array, rows: Patterns, half: bool) -> None:
    """Rows `[K, n]` less the row behind them, of 16 bits each, in float32."""
    for start in range(0, out.shape[1], PART):
        base = rows[out.shape[0]][start : start + PART]
        for k in range(out.shape[0]):
            apart(out[k][start : start + PART], rows[k][start : start + PART], base, half)


@compiled
def keep(bits: Bits, top: Any, none: Any, low: Bits, high: Bits, cut: NDArray[np.int64]) -> None:
    """Make zero what is smaller than its row's `low` before the index `cut`, and than `high` from there on.

    top    all bits but the sign
    none   zero. Were it known here, compilers would leave elements as they are by masked stores, which take several
           times as long on some processors
    """
    for k in range(cut.size):
        keep_from(bits[k][: cut[k]], top, none, low[k])
        keep_from(bits[k][cut[k] :], top, none, high[k])


@compiled
def keep_from(bits: Bits, top: Any, none: Any, least: Any) -> None:
    """Make zero whose magnitude is smaller than `least`."""
    for i in range(bits.size):
        own = bits[i]
        bits[i] = own - (none if (own & top) >= least else own)


@compiled
def elect(out: Array, rows: Array, votes: Array, taken: Array, mass: Array, tie: np.float32) -> None:
    """Sums of `mass` times those that have the sign of the votes, over sums of their `taken`, `[K]` each."""
    signs, counts = np.empty(PART, np.float32), np.empty(PART, np.float32)
    for start in range(0, out.size, PART):
        total = out[start : start + PART]
        sign, count = signs[: total.size], counts[: total.size]
        sign_of(sign, votes[start : start + PART], tie)
        fill(total, ZERO)
        fill(count, ZERO)
        for k in range(mass.size):
            add_agreeing(total, count, rows[k][start : start + PART], sign, taken[k], mass[k])
        for i in range(total.size):
            share = count[i]
            share = share if share > LEAST else LEAST
            total[i] = total[i] / share * sign[i]


@compiled
def add_agreeing(total: Array, count: Array, values: Array, sign: Array, taken: np.float32, mass: np.float32) -> None:
    """Add those values that have the sign, times `mass`, to the total, and `taken` to the count."""
    for i in range(total.size):
        own = values[i] * sign[i]
        own = own if own > ZERO else ZERO
        count[i] += taken if own > ZERO else ZERO
        total[i] += own * mass


@compiled
def sign_of(sign: Array, votes: Array, tie: np.float32) -> None:
    """One with the votes' sign; that of `tie` where they are zero and it is negative."""
    bits, given = sign.view(np.uint32), votes.view(np.uint32)
    if tie < ZERO:
        for i in range(sign.size):
            own = given[i] & SIGN
            bits[i] = (SIGN if votes[i] == ZERO else own) | UNIT
    else:
        for i in range(sign.size):
            bits[i] = (given[i] & SIGN) | UNIT
