"""Eight-bit activations: rows or images of bfloat16 to whole numbers and back, compiled by Numba.

    step_r = max |x_r| / 127      q = round(x / step_r), ties to even      y = sums step_r scale_c + shift_c

An image without negative numbers has 255 steps instead, and one with some has 128 added to its whole numbers.
`halves` are bit patterns (uint16) of bfloat16. Importing this module imports Numba.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pluria.numbers.compiled_by import compiled
from pluria.numbers.compiled_storage import MAGNITUDE16, NAN16, Array, Patterns, of_bfloat, to_bfloat

Whole = NDArray[np.int8]
Bytes = NDArray[np.uint8]
Sums = NDArray[np.int32]
TOP, SHIFTER = np.float32(127.0), np.float32(1.5 * 2**23)
"""Adding and taking away the latter rounds to the nearest whole number."""
LEAST = np.float32(1e-30)
ALL, MIDDLE, NONE = np.float32(255.0), np.float32(128.0), np.float32(0.0)
MINUS, INFINITE = np.uint16(0x8000), np.uint16(0x7F80)
PART = 1024
"""Elements of an image at a time."""


@compiled
def quantise(whole: Whole, steps: Array, halves: Patterns, first: int, last: int) -> None:
    """Whole numbers of the rows first..last-1 of `halves` `[R, I]`, and the step of each row."""
    inputs = halves.shape[1]
    ends = np.empty(1, np.float32)
    end = ends.view(np.uint32)
    for r in range(first, last):
        row, top = halves[r], np.uint32(0)
        for i in range(inputs):  # of magnitudes, the order of patterns is the order of numbers
            top = max(top, np.uint32(row[i]) & MAGNITUDE16)
        end[0] = top << np.uint32(16)
        steps[r] = max(ends[0], LEAST) / TOP
        inverse = TOP / max(ends[0], LEAST)
        out = whole[r]
        for i in range(inputs):
            out[i] = np.int8(np.int32((of_bfloat(row[i]) * inverse + SHIFTER) - SHIFTER))


@compiled
def spread_sums(halves: Patterns, sums: Sums, steps: Array, scale: Array, shift: Array, first: int, last: int) -> None:
    """bfloat16 of sums step scale + shift, for the rows first..last-1 of `sums` `[R, C]`."""
    channels = sums.shape[1]
    for r in range(first, last):
        step, row, out = steps[r], sums[r], halves[r]
        for c in range(channels):
            out[c] = to_bfloat(np.float32(row[c]) * step * scale[c] + shift[c])


@compiled
def quantise_images(whole: Bytes, steps: Array, signed: Bytes, halves: Patterns, first: int, last: int) -> None:
    """Bytes of the images first..last-1 of `halves` `[N, P]`, the step of each, and whether 128 was added."""
    ends = np.empty(1, np.float32)
    end = ends.view(np.uint32)
    for n in range(first, last):
        image, top, below = halves[n], np.uint16(0), np.uint16(0)
        for i in range(image.size):
            below = max(below, image[i])  # patterns of negative numbers are larger than that of minus zero
            top = max(top, np.uint16(image[i] & MAGNITUDE16))
        minus = below > MINUS
        # One infinite activation would take the meaning from all others: it is no number any more, and so are they.
        end[0] = np.uint32(NAN16 if top >= INFINITE else top) << np.uint32(16)
        size, add = max(ends[0], LEAST), MIDDLE if minus else NONE
        most = TOP if minus else ALL
        steps[n], signed[n], inverse = size / most, minus, most / size
        out = whole[n]
        for i in range(image.size):
            out[i] = np.uint8(np.int32(((of_bfloat(image[i]) * inverse + SHIFTER) - SHIFTER) + add))


@compiled
def spread_images(
    halves: Patterns,
    steps: Array,
    scale: Array,
    shift: Array,
    others: Patterns,
    least: np.float32,
    first: int,
    last: int,
) -> None:
    """Images first..last-1 of `halves` `[N, P]`, channels last: step scale y + shift + other, or `least`, in place.

    scale, shift   of as many channels as there are, repeated to the length of a part
    others         `[N, P]`, or empty where nothing is added
    """
    own, more = np.empty(scale.size, np.float32), others.size > 0
    for n in range(first, last):
        for i in range(scale.size):
            own[i] = scale[i] * steps[n]
        for start in range(0, halves.shape[1], scale.size):
            part = halves[n, start : start + scale.size]
            if more:
                other = others[n, start : start + scale.size]
                for i in range(part.size):
                    y = of_bfloat(part[i]) * own[i] + shift[i] + of_bfloat(other[i])
                    part[i] = to_bfloat(least if y < least else y)
            else:
                for i in range(part.size):
                    y = of_bfloat(part[i]) * own[i] + shift[i]
                    part[i] = to_bfloat(least if y < least else y)
