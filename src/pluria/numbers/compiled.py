"""The loops behind `kernel.py`, compiled by Numba. Importing this module imports Numba, on the kernel's first use.

    for each block:  scales, words (one Philox call per four elements), rounding

Each step is its own loop over small arrays that stay in the first-level cache, in a form that compilers vectorise:
Philox on 64-bit lanes that hold 32-bit words, selections in place of branches, no integer division per element.
Processors fetch what comes next by themselves; asking them for it took longer.
Constants are typed, because Numba turns uint64 with int64 into float64. No fast maths: the bits are the contract.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]
Words = NDArray[np.uint32]
Patterns = NDArray[np.uint16]
Whole = NDArray[np.int8]
Address = NDArray[np.uint64]
Layout = NDArray[np.int64]

BLOCK = 1024
"""Elements per block, a multiple of four: slices cost too much for fewer, and arrays of more leave the cache."""

INTEGER, MINIFLOAT, TABLE = 0, 1, 2
"""Kinds of unit grids: whole numbers, few mantissa bits, a list of 16 levels."""

LEVELS = 16
"""A constant, so that the search over the levels is unrolled."""

M0, M1 = np.uint64(0xD2511F53), np.uint64(0xCD9E8D57)
W0, W1 = np.uint64(0x9E3779B9), np.uint64(0xBB67AE85)
WORD, HALF = np.uint64(0xFFFFFFFF), np.uint64(32)
UNIT, ZERO, ONE, REBIAS = np.float32(2.0**-24), np.float32(0.0), np.float32(1.0), np.float32(2.0**112)
EIGHT, SIXTEEN, THIRTEEN, ODD = np.uint32(8), np.uint32(16), np.uint32(13), np.uint32(1)
SIGN16, MAGNITUDE16, INFINITE16 = np.uint32(0x8000), np.uint32(0x7FFF), np.uint32(0x7C00)
MAGNITUDE, EXPONENT, NAN16 = np.uint32(0x7FFFFFFF), np.uint32(0x7F800000), np.uint32(0x7FC0)
NONE = np.uint32(0)


def compiled(function: Callable[..., Any]) -> Any:
    """`function` compiled on its first call; kept on disk where some folder for that can be written."""
    options: dict[str, Any] = {"nogil": True, "error_model": "numpy"}
    try:
        return numba.njit(cache=True, **options)(function)
    except (RuntimeError, OSError):
        return numba.njit(**options)(function)


@compiled
def fill_words(words: Words, quad: np.uint64, address: Address) -> None:
    """Random words of the elements from 4 `quad` on; address = key words, tensor, group, stream (uint64)."""
    k0, k1, tensor, group, stream = address[0], address[1], address[2], address[3], address[4]
    for q in range(words.size // 4):
        x0, x1, x2, x3 = quad + np.uint64(q), tensor, group, stream
        a, b = k0, k1
        for _ in range(10):
            # The upper halves of x1 and x3 hold garbage; only the lower halves reach a product or the result.
            p0, p1 = (x0 & WORD) * M0, (x2 & WORD) * M1
            x0, x1, x2, x3 = (p1 >> HALF) ^ x1 ^ a, p1, (p0 >> HALF) ^ x3 ^ b, p0
            a, b = (a + W0) & WORD, (b + W1) & WORD
        words[4 * q], words[4 * q + 1] = np.uint32(x0 & WORD), np.uint32(x1 & WORD)
        words[4 * q + 2], words[4 * q + 3] = np.uint32(x2 & WORD), np.uint32(x3 & WORD)


@compiled
def fill(target: Array, value: np.float32) -> None:
    """Set all of `target`; like `copy` a plain loop, since slices are assigned through checks and temporaries."""
    for i in range(target.size):
        target[i] = value


@compiled
def copy(target: Array, source: Array) -> None:
    """Set `target` to `source`."""
    for i in range(target.size):
        target[i] = source[i]


@compiled
def spread(s: Array, z: Array, scale: Array, zero: Array, layout: Layout, start: int, count: int) -> int:
    """Scale and zero point of the elements start..start+count-1; layout = outer, channels, inner, group, two strides.

    The strides in `scale` are those of output channels and of groups; with inner = 1 the former is one.
    Returns the end of the run of equal scales if one run covers all of them, else `start`.
    """
    outer, channels, inner, group = layout[0], layout[1], layout[2], layout[3]
    flat, j = start // inner, start % inner
    flat, c = flat // channels, flat % channels
    b, o = flat // outer, flat % outer
    part, r = (o * inner + j) // group, (o * inner + j) % group
    part0, r0 = o * inner // group, o * inner % group
    i, end = 0, start
    while i < count:
        at = (b * channels + c) * layout[4] + part * layout[5]
        if inner == 1:  # neighbours in memory are neighbouring channels
            run = min(channels - c, count - i)
            copy(s[i : i + run], scale[at : at + run])
            copy(z[i : i + run], zero[at : at + run])
            c += run
        else:
            whole = min(inner - j, group - r)
            run = min(whole, count - i)
            fill(s[i : i + run], scale[at])
            fill(z[i : i + run], zero[at])
            end = start + whole if run == count else end
            j, r = j + run, r + run
            if j == inner:
                c, j, part, r = c + 1, 0, part0, r0
            elif r == group:
                part, r = part + 1, 0
        i += run
        if c == channels:
            b, c, o = b + (o + 1) // outer, 0, (o + 1) % outer
            part0, r0 = o * inner // group, o * inner % group
            part, r = part0, r0
    return end


@compiled
def widen(values: Array, source: Patterns, half: bool) -> None:
    """float32 values of the bit patterns (uint16) of bfloat16 or, if `half`, of float16."""
    bits = values.view(np.uint32)
    if half:
        for i in range(source.size):
            x = np.uint32(source[i])
            infinite = EXPONENT if (x & INFINITE16) == INFINITE16 else NONE
            bits[i] = ((x & SIGN16) << SIXTEEN) | ((x & MAGNITUDE16) << THIRTEEN) | infinite
        for i in range(source.size):
            values[i] *= REBIAS
    else:
        for i in range(source.size):
            bits[i] = np.uint32(source[i]) << SIXTEEN


@compiled
def narrow(target: Patterns, values: Array) -> None:
    """Write float32 values as bit patterns (uint16) of bfloat16: to the nearest, ties to even."""
    bits = values.view(np.uint32)
    for i in range(target.size):
        x = bits[i]
        nearest = (x + MAGNITUDE16 + ((x >> SIXTEEN) & ODD)) >> SIXTEEN
        target[i] = NAN16 if (x & MAGNITUDE) > EXPONENT else nearest


@compiled
def cut(target: Patterns, values: Array) -> None:
    """`narrow` for values that bfloat16 holds exactly, as it does codes of at most eight bits."""
    bits = values.view(np.uint32)
    for i in range(target.size):
        target[i] = np.uint16(bits[i] >> SIXTEEN)


@compiled
def shrink(target: Whole, values: Array) -> None:
    """Write whole numbers of at most eight bits."""
    for i in range(target.size):
        target[i] = np.int8(np.int32(values[i]))


@compiled
def round_integer(
    out: Array, values: Array, words: Words, mask: np.uint32, s: Array, t: Array, z: Array, span: np.float32
) -> None:
    """Rounded weights on the whole numbers -z..span-z, times `t`."""
    for i in range(out.size):
        x = values[i] / s[i]
        x = -z[i] if x < -z[i] else x
        x = span - z[i] if x > span - z[i] else x
        low = np.floor(x)
        up = ONE if np.float32(np.int32((words[i] >> EIGHT) ^ mask)) * UNIT < x - low else ZERO
        out[i] = (low + up) * t[i]  # up, even if zero, turns -0.0 into 0.0


@compiled
def round_minifloat(
    out: Array, values: Array, words: Words, mask: np.uint32, s: Array, t: Array, spacing: Array, rule: Array
) -> None:
    """Rounded weights on minifloats, times `t`; rule = largest, smallest normal, 2^-mantissa; `spacing` is scratch."""
    largest, smallest, step = rule[0], rule.view(np.uint32)[1], rule[2]
    bits, exponent = out.view(np.uint32), spacing.view(np.uint32)
    for i in range(out.size):
        x = values[i] / s[i]
        x = -largest if x < -largest else x
        out[i] = largest if x > largest else x
    for i in range(out.size):
        exponent[i] = max(bits[i] & EXPONENT, smallest)
    for i in range(out.size):
        d = spacing[i] * step
        x = out[i] / d
        low = np.floor(x)
        up = ONE if np.float32(np.int32((words[i] >> EIGHT) ^ mask)) * UNIT < x - low else ZERO
        out[i] = (low + up) * d * t[i]


@compiled
def round_table(
    out: Array, values: Array, words: Words, mask: np.uint32, s: Array, t: Array, low: Array, high: Array, levels: Array
) -> None:
    """Rounded weights on 16 sorted levels, times `t`; `low` and `high` are scratch."""
    first, final = levels[0], levels[LEVELS - 1]
    for i in range(out.size):
        x = values[i] / s[i]
        x = first if x < first else x
        out[i] = final if x > final else x
    for i in range(out.size):
        x, below, above = out[i], first, final
        for k in range(LEVELS):
            below = levels[k] if levels[k] <= x else below
            above = levels[LEVELS - 1 - k] if levels[LEVELS - 1 - k] >= x else above
        low[i], high[i] = below, above
    for i in range(out.size):
        gap = high[i] - low[i]
        p = (out[i] - low[i]) / (gap if gap > ZERO else ONE)
        up = np.float32(np.int32((words[i] >> EIGHT) ^ mask)) * UNIT < p
        out[i] = ((high[i] if up else low[i]) + ZERO) * t[i]


@compiled
def scatter(target: Array | Patterns, values: Array | Patterns, order: Layout, start: int) -> None:
    """Write the elements start.. of a tensor `[A, B, S]` into memory that holds it as `[A, S, B]`; order = B, S."""
    channels, places, inner = order[0], order[1], order[0] * order[1]
    base, channel, place = start // inner * inner, start % inner // places, start % places
    for i in range(values.size):
        target[base + place * channels + channel] = values[i]
        place += 1
        if place == places:
            place, channel = 0, channel + 1
            if channel == channels:
                channel, base = 0, base + inner


@compiled
def round_range(memory: Any, grid: Any, address: Address, unit: bool, start: int, stop: int) -> None:
    """Round the elements start..stop-1; `start` is a multiple of four. `unit`: without the scale.

    memory = target, target16, target8, source, source16, half, order: weights come from float32 `source`, or from
    patterns in `source16` where it is not empty; so do targets, which lie as the source does unless `order` says how
    (`scatter`). int8 targets are for the codes of integers.
    """
    target, target16, target8, source, source16, half, order = memory
    scale, zero, layout, kind, rule = grid
    words, mask = np.empty(BLOCK, np.uint32), np.uint32(address[5])
    s, z, known = np.empty(BLOCK, np.float32), np.empty(BLOCK, np.float32), start
    wide, rounded, narrowed = np.empty(BLOCK, np.float32), np.empty(BLOCK, np.float32), np.empty(BLOCK, np.uint16)
    low, high, ones = np.empty(BLOCK, np.float32), np.empty(BLOCK, np.float32), np.ones(BLOCK, np.float32)
    moved, straight = order.size > 0, order.size == 0 and target.size > 0
    for a in range(start, stop, BLOCK):
        b = min(a + BLOCK, stop)
        if b > known:
            known = spread(s, z, scale, zero, layout, a, b - a)
        fill_words(words, np.uint64(a // 4), address)
        times = ones if unit else s
        values = wide[: b - a] if source16.size > 0 else source[a:b]
        out = target[a:b] if straight else rounded[: b - a]
        if source16.size > 0:
            widen(values, source16[a:b], half)
        if kind == INTEGER:
            round_integer(out, values, words, mask, s, times, z, rule[0])
        elif kind == MINIFLOAT:
            round_minifloat(out, values, words, mask, s, times, low, rule)
        else:
            round_table(out, values, words, mask, s, times, low, high, rule)
        if target16.size > 0:
            part = narrowed[: b - a] if moved else target16[a:b]
            if unit and kind == INTEGER:
                cut(part, out)
            else:
                narrow(part, out)
            if moved:
                scatter(target16, part, order, a)
        elif target8.size > 0:
            shrink(target8[a:b], out)
        elif moved:
            scatter(target, out, order, a)


@compiled
def round_rows(memory: Any, grid: Any, address: Address, unit: bool, rows: Layout, width: int) -> None:
    """Round some rows of `width` elements, a multiple of four, and leave the others."""
    for row in rows:
        round_range(memory, grid, address, unit, row * width, (row + 1) * width)
