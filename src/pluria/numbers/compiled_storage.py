"""Between float32 and what memory holds: 16-bit patterns, int8, channels last. Loops compiled by Numba."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pluria.numbers.compiled_by import compiled

Array = NDArray[np.float32]
Patterns = NDArray[np.uint16]
Whole = NDArray[np.int8]
Layout = NDArray[np.int64]

REBIAS = np.float32(2.0**112)
SIXTEEN, THIRTEEN, ODD, NONE = np.uint32(16), np.uint32(13), np.uint32(1), np.uint32(0)
SIGN16, MAGNITUDE16, INFINITE16 = np.uint32(0x8000), np.uint32(0x7FFF), np.uint32(0x7C00)
MAGNITUDE, EXPONENT, NAN16 = np.uint32(0x7FFFFFFF), np.uint32(0x7F800000), np.uint32(0x7FC0)


@compiled
def widen(values: Array, source: Patterns, half: bool) -> None:
    """float32 values of the bit patterns (uint16) of bfloat16 or, if `half`, of float16."""
    if half:
        for i in range(source.size):
            values[i] = of_half(source[i])
    else:
        for i in range(source.size):
            values[i] = of_bfloat(source[i])


@compiled
def apart(values: Array, source: Patterns, base: Patterns, half: bool) -> None:
    """float32 differences of such patterns from those of a base."""
    if half:
        for i in range(values.size):
            values[i] = of_half(source[i]) - of_half(base[i])
    else:
        for i in range(values.size):
            values[i] = of_bfloat(source[i]) - of_bfloat(base[i])


@compiled
def of_bfloat(pattern: np.uint16) -> np.float32:
    """The value of a pattern of bfloat16."""
    return np.uint32(np.uint32(pattern) << SIXTEEN).view(np.float32)


@compiled
def of_half(pattern: np.uint16) -> np.float32:
    """The value of a pattern of float16."""
    x = np.uint32(pattern)
    infinite = EXPONENT if (x & INFINITE16) == INFINITE16 else NONE
    bits = ((x & SIGN16) << SIXTEEN) | ((x & MAGNITUDE16) << THIRTEEN) | infinite
    return np.uint32(bits).view(np.float32) * REBIAS


@compiled
def narrow(target: Patterns, values: Array) -> None:
    """Write float32 values as bit patterns (uint16) of bfloat16: to the nearest, ties to even."""
    for i in range(target.size):
        target[i] = to_bfloat(values[i])


@compiled
def to_bfloat(value: np.float32) -> np.uint16:
    """The pattern of bfloat16 that is nearest, ties to even."""
    x = np.float32(value).view(np.uint32)
    nearest = (x + MAGNITUDE16 + ((x >> SIXTEEN) & ODD)) >> SIXTEEN
    return np.uint16(NAN16 if (x & MAGNITUDE) > EXPONENT else nearest)


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
