"""Histograms of the bit patterns of magnitudes, for exact selection without sorting.

The bits of a positive float, read as an integer, are ordered like the float: 31 bits for float32, 63 for float64. On
a CPU a compiled loop counts; elsewhere, and without Numba, torch does, with equal results.
"""

from __future__ import annotations

from functools import lru_cache
from types import ModuleType

import torch
from torch import Tensor

from pluria.numbers import kernel

BITS = {torch.float32: 31, torch.float64: 63}
"""How many bits the pattern of a magnitude has."""


def patterns(values: Tensor) -> Tensor:
    """Bits of |x| as integers of the same width: int32 for float32, int64 for float64."""
    kind = torch.int32 if values.dtype == torch.float32 else torch.int64
    return values.view(kind) & torch.iinfo(kind).max


def histogram(values: Tensor, prefix: Tensor, shift: int, bits: int) -> Tensor:
    """How often each pattern occurs: int32 `[J, R, 2^bits]` of `values` `[R, n]`.

    Counted are the `bits` bits above the lowest `shift`, of those elements of row r whose bits above them equal
    `prefix[j, r]`. Zeros count all where no bits are above. Raises TypeError for other dtypes than float32 and float64.
    """
    if values.dtype not in BITS:
        raise TypeError(f"magnitudes are ranked in float32 or float64; got {values.dtype}")
    found = torch.zeros((*prefix.shape, 2**bits), dtype=torch.int32, device=values.device)
    count = _counted if kernel.available(values.device) else _counted_by_torch
    for j, row in enumerate(prefix):
        for r, wanted in enumerate(row.tolist()):
            count(found[j, r], values[r], wanted, shift, bits)
    return found


def _counted(found: Tensor, values: Tensor, wanted: int, shift: int, bits: int) -> None:
    loops, kind = _loops(), torch.int32 if values.dtype == torch.float32 else torch.int64
    words, top = values.contiguous().view(kind).numpy(), torch.iinfo(kind).max
    if bits == 0:
        found[0] = loops.count_equal(words, top, wanted, shift)
    elif shift + bits == BITS[values.dtype]:
        loops.count_all(found.numpy(), words, top, shift)
    else:
        loops.count_within(found.numpy(), words, top, wanted, shift, bits)


def _counted_by_torch(found: Tensor, values: Tensor, wanted: int, shift: int, bits: int) -> None:
    words = patterns(values)
    own = words[words >> (shift + bits) == wanted] >> shift
    found.copy_(torch.bincount((own & (2**bits - 1)).long(), minlength=2**bits))


@lru_cache(maxsize=1)
def _loops() -> ModuleType:
    from pluria.numbers import compiled_radix

    return compiled_radix
