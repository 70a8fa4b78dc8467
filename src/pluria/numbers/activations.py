"""Eight-bit activations: rows of bfloat16 to whole numbers and back, one pass each, compiled by Numba.

    step_r = max |x_r| / 127      q = round(x / step_r), ties to even      y = sums step_r scale_c + shift_c

`halves` are bit patterns (uint16) of bfloat16. Importing this module imports Numba.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pluria.numbers.compiled_by import compiled
from pluria.numbers.compiled_storage import MAGNITUDE16, Array, Patterns, narrow, widen

Whole = NDArray[np.int8]
Sums = NDArray[np.int32]
TOP, SHIFTER = np.float32(127.0), np.float32(1.5 * 2**23)
"""Adding and taking away the latter rounds to the nearest whole number."""
LEAST = np.float32(1e-30)


@compiled
def quantise(whole: Whole, steps: Array, halves: Patterns, first: int, last: int) -> None:
    """Whole numbers of the rows first..last-1 of `halves` `[R, I]`, and the step of each row."""
    inputs = halves.shape[1]
    wide, ends = np.empty(inputs, np.float32), np.empty(1, np.float32)
    end = ends.view(np.uint32)
    for r in range(first, last):
        row, top = halves[r], np.uint32(0)
        for i in range(inputs):  # of magnitudes, the order of patterns is the order of numbers
            top = max(top, np.uint32(row[i]) & MAGNITUDE16)
        end[0] = top << np.uint32(16)
        steps[r] = max(ends[0], LEAST) / TOP
        inverse = TOP / max(ends[0], LEAST)
        widen(wide, row, False)
        for i in range(inputs):
            whole[r, i] = np.int8(np.int32((wide[i] * inverse + SHIFTER) - SHIFTER))


@compiled
def spread_sums(halves: Patterns, sums: Sums, steps: Array, scale: Array, shift: Array, first: int, last: int) -> None:
    """bfloat16 of sums step scale + shift, for the rows first..last-1 of `sums` `[R, C]`."""
    channels = sums.shape[1]
    wide = np.empty(channels, np.float32)
    for r in range(first, last):
        step = steps[r]
        for c in range(channels):
            wide[c] = np.float32(sums[r, c]) * step * scale[c] + shift[c]
        narrow(halves[r], wide)
