"""The loops behind `kernel.py`, compiled by Numba. Importing this module imports Numba, on the kernel's first use.

    for each block:  scales, words (one Philox call per four elements), rounding

Each step is its own loop over small arrays that stay in the first-level cache, in a form that compilers vectorise:
selections in place of branches, no integer division per element.
Processors fetch what comes next by themselves; asking them for it took longer.
Constants are typed, because Numba turns uint64 with int64 into float64. No fast maths: the bits are the contract.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from pluria.numbers.compiled_by import compiled
from pluria.numbers.compiled_philox import Address, Words, fill_words
from pluria.numbers.compiled_storage import EXPONENT, Array, Layout, Patterns, cut, narrow, scatter, shrink, widen

BLOCK = 1024
"""Elements per block, a multiple of four: slices cost too much for fewer, and arrays of more leave the cache."""

RUN = 256
"""Elements of one scale that are worth a loop of their own."""

INTEGER, MINIFLOAT, TABLE = 0, 1, 2
"""Kinds of unit grids: whole numbers, few mantissa bits, a list of 16 levels."""

LEVELS = 16
"""A constant, so that the search over the levels is unrolled."""

UNIT, ZERO, ONE, EIGHT = np.float32(2.0**-24), np.float32(0.0), np.float32(1.0), np.uint32(8)


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
def locate(layout: Layout, start: int) -> tuple[int, int]:
    """Where the scale of an element is, and where the run of that scale ends (see `spread`)."""
    outer, channels, inner, group = layout[0], layout[1], layout[2], layout[3]
    row, j = start // inner, start % inner
    flat, c = row // channels, row % channels
    b, o = flat // outer, flat % outer
    part, r = (o * inner + j) // group, (o * inner + j) % group
    return (b * channels + c) * layout[4] + part * layout[5], start + min(inner - j, group - r)


@compiled
def long(layout: Layout) -> bool:
    """Whether all runs of one scale are worth a loop of their own; they then begin with a multiple of eight."""
    return bool(layout[2] % 8 == 0 and layout[3] % 8 == 0 and min(layout[2], layout[3]) >= RUN)


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
def whole(value: np.float32, word: np.uint32, mask: np.uint32, s: np.float32, z: np.float32, span: np.float32) -> Any:
    """One weight on the whole numbers -z..span-z."""
    x = value / s
    x = -z if x < -z else x
    x = span - z if x > span - z else x
    low = np.floor(x)
    up = ONE if np.float32(np.int32((word >> EIGHT) ^ mask)) * UNIT < x - low else ZERO
    return low + up  # up, even if zero, turns -0.0 into 0.0


@compiled
def round_integer(
    out: Array, values: Array, words: Words, mask: np.uint32, s: Array, t: Array, z: Array, span: np.float32
) -> None:
    """Rounded weights, times `t`."""
    for i in range(out.size):
        out[i] = whole(values[i], words[i], mask, s[i], z[i], span) * t[i]


@compiled
def round_run(
    out: Array,
    values: Array,
    words: Words,
    mask: np.uint32,
    s: np.float32,
    t: np.float32,
    z: np.float32,
    span: np.float32,
) -> None:
    """`round_integer` where all have one scale."""
    for i in range(out.size):
        out[i] = whole(values[i], words[i], mask, s, z, span) * t


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
def ahead(
    s: Array, z: Array, scale: Array, zero: Array, layout: Layout, runs: bool, a: int, stop: int, known: int
) -> tuple[int, int, int]:
    """Where the block from `a` on ends, and the scale that all of it has if `runs`; else `s` and `z` are spread.

    The last number is how far `s` and `z` are known, from one block to the next.
    """
    b = min(a + BLOCK, stop)
    if runs:
        at, end = locate(layout, a)
        return min(b, end), at, known
    return b, 0, spread(s, z, scale, zero, layout, a, b - a) if b > known else known


@compiled
def read(wide: Array, source: Array, source16: Patterns, half: bool, a: int, b: int) -> Array:
    """The weights a..b-1 in float32, in `wide` where they are not so in memory."""
    if source16.size == 0:
        return source[a:b]
    widen(wide[: b - a], source16[a:b], half)
    return wide[: b - a]


@compiled
def put(memory: Any, values: Array, scratch: Patterns, at: int, exact: bool) -> None:
    """Write rounded values, those of the elements from `at` on, where `memory` wants them; `exact` in 16 bits or not.

    Where a target is float32 in the source's order, values are in their place already.
    """
    target, target16, target8, _, _, _, order = memory
    if target16.size > 0:
        part = scratch[: values.size] if order.size > 0 else target16[at : at + values.size]
        if exact:
            cut(part, values)
        else:
            narrow(part, values)
        if order.size > 0:
            scatter(target16, part, order, at)
    elif target8.size > 0:
        shrink(target8[at : at + values.size], values)
    elif order.size > 0:
        scatter(target, values, order, at)


@compiled
def round_range(memory: Any, grid: Any, address: Address, unit: bool, start: int, stop: int) -> None:
    """Round the elements start..stop-1; `start` is a multiple of four. `unit`: without the scale.

    memory = target, target16, target8, source, source16, half, order: weights come from float32 `source`, or from
    patterns in `source16` where it is not empty; so do targets, which lie as the source does unless `order` says how
    (`scatter`). int8 targets are for the codes of integers.
    """
    target, _, _, source, source16, half, order = memory
    scale, zero, layout, kind, rule = grid
    words, mask = np.empty(BLOCK, np.uint32), np.uint32(address[5])
    s, z, known = np.empty(BLOCK, np.float32), np.empty(BLOCK, np.float32), start
    wide, rounded, narrowed = np.empty(BLOCK, np.float32), np.empty(BLOCK, np.float32), np.empty(BLOCK, np.uint16)
    low, high, ones = np.empty(BLOCK, np.float32), np.empty(BLOCK, np.float32), np.ones(BLOCK, np.float32)
    straight = order.size == 0 and target.size > 0
    runs, a, b = kind == INTEGER and long(layout), start, start
    while b < stop:
        a = b
        b, at, known = ahead(s, z, scale, zero, layout, runs, a, stop, known)
        fill_words(words[: (b - a + 7) // 8 * 8], np.uint64(a // 4), address)
        times, values = ones if unit else s, read(wide, source, source16, half, a, b)
        out = target[a:b] if straight else rounded[: b - a]
        if runs:
            round_run(out, values, words, mask, scale[at], ONE if unit else scale[at], zero[at], rule[0])
        elif kind == INTEGER:
            round_integer(out, values, words, mask, s, times, z, rule[0])
        elif kind == MINIFLOAT:
            round_minifloat(out, values, words, mask, s, times, low, rule)
        else:
            round_table(out, values, words, mask, s, times, low, high, rule)
        put(memory, out, narrowed, a, unit and kind == INTEGER)


@compiled
def round_rows(memory: Any, grid: Any, address: Address, unit: bool, rows: Layout, width: int) -> None:
    """Round some rows of `width` elements, a multiple of four, and leave the others."""
    for row in rows:
        round_range(memory, grid, address, unit, row * width, (row + 1) * width)
