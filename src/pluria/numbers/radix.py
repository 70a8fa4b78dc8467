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
    """How often each pattern occurs: int64 `[J, R, 2^bits]` of `values` `[R, n]`.

    Counted are the `bits` bits above the lowest `shift`, of those elements of row r whose bits above them equal
    `prefix[j, r]`. Zeros count all where no bits are above. Raises TypeError for other dtypes than float32 and float64.
    """
    if values.dtype not in BITS:
        raise TypeError(f"magnitudes are ranked in float32 or float64; got {values.dtype}")
    found = torch.zeros((*prefix.shape, 2**bits), dtype=torch.int64, device=values.device)
    loops = _loops() if kernel.available(values.device) else None
    kind = torch.int32 if values.dtype == torch.float32 else torch.int64
    top = torch.iinfo(kind).max
    words = values.contiguous().view(kind) if loops else patterns(values)
    for j, row in enumerate(prefix):
        for r, wanted in enumerate(row.tolist()):
            if loops:
                loops.count(found[j, r].numpy(), words[r].numpy(), top, wanted, shift, bits)
            else:
                own = words[r][words[r] >> (shift + bits) == wanted] >> shift
                found[j, r] = torch.bincount((own & (2**bits - 1)).long(), minlength=2**bits)
    return found


@lru_cache(maxsize=1)
def _loops() -> ModuleType:
    from pluria.numbers import compiled_radix

    return compiled_radix
