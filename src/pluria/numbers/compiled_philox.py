"""Philox4x32-10 of `philox.py`, compiled by Numba: 64-bit lanes hold 32-bit words, so that compilers vectorise it."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from pluria.numbers.compiled_by import compiled

Words = NDArray[np.uint32]
Address = NDArray[np.uint64]

M0, M1 = np.uint64(0xD2511F53), np.uint64(0xCD9E8D57)
W0, W1 = np.uint64(0x9E3779B9), np.uint64(0xBB67AE85)
WORD, HALF = np.uint64(0xFFFFFFFF), np.uint64(32)


@compiled
def turn(x0: np.uint64, x1: np.uint64, x2: np.uint64, x3: np.uint64, a: np.uint64, b: np.uint64) -> Any:
    """One round. The upper halves of x1 and x3 hold garbage; only the lower halves reach a product or the result."""
    p0, p1 = (x0 & WORD) * M0, (x2 & WORD) * M1
    return (p1 >> HALF) ^ x1 ^ a, p1, (p0 >> HALF) ^ x3 ^ b, p0


@compiled
def put(words: Words, at: int, x0: np.uint64, x1: np.uint64, x2: np.uint64, x3: np.uint64) -> None:
    """Write four words."""
    words[at], words[at + 1] = np.uint32(x0 & WORD), np.uint32(x1 & WORD)
    words[at + 2], words[at + 3] = np.uint32(x2 & WORD), np.uint32(x3 & WORD)


@compiled
def fill_words(words: Words, quad: np.uint64, address: Address) -> None:
    """Random words of the elements from 4 `quad` on, a multiple of eight; address = key words, tensor, group, stream.

    Both halves take turns, so that the products of one are made while those of the other are waited for.
    """
    k0, k1, tensor, group, stream = address[0], address[1], address[2], address[3], address[4]
    half = words.size // 8
    for q in range(half):
        x0, x1, x2, x3 = quad + np.uint64(q), tensor, group, stream
        y0, y1, y2, y3 = quad + np.uint64(q + half), tensor, group, stream
        a, b = k0, k1
        for _ in range(10):
            x0, x1, x2, x3 = turn(x0, x1, x2, x3, a, b)
            y0, y1, y2, y3 = turn(y0, y1, y2, y3, a, b)
            a, b = (a + W0) & WORD, (b + W1) & WORD
        put(words, 4 * q, x0, x1, x2, x3)
        put(words, 4 * (q + half), y0, y1, y2, y3)
