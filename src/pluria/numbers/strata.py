"""Stratified members of one tensor from two bytes a weight: what sixteen of them share is drawn once, not for each.

    member d rounds up where word xor mask(d) < T = ceil(2^24 p), word and T of 24 bits (see `coupling.py`)

Masks of the members 16 g .. 16 g + 15 differ in their four leading bits alone. So a member rounds up where
lead(word) xor lead(mask) < lead(T) + [the other bits of word xor mask lie below those of T], and floor, lead(word) and
the right side, of at most 8, 4 and 4 bits, tell all sixteen of them apart. Integers only: floors of at most eight bits.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

MEMBERS = 16
"""Members in a row that two bytes serve."""

NOTHING = 0xFFFFFFFF


class Strata:
    """What is noted of one tensor, block by block as members are written; the first of sixteen takes longer.

    Each block says which sixteen it serves, so work that was broken off leaves nothing wrong behind. One member at a
    time: the next is begun when the one before is written. The tensor must not change.
    """

    def __init__(self) -> None:
        self._held: NDArray[np.uint16] = np.empty(0, np.uint16)
        self._serves: NDArray[np.uint32] = np.empty(0, np.uint32)

    def arrays(self, count: int, block: int) -> tuple[NDArray[np.uint16], NDArray[np.uint32]]:
        """Notes of the weights, and for each block the other bits of the masks that they serve."""
        if self._held.size != count:
            self._held = np.empty(count, np.uint16)
            self._serves = np.full(-(-count // block), NOTHING, np.uint32)
        return self._held, self._serves
