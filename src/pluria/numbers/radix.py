"""Histograms of the bit patterns of magnitudes, for exact selection without sorting.

The bits of a positive float, read as an integer, are ordered like the float: 31 bits for float32, 63 for float64. On
a CPU a compiled loop counts; elsewhere, and without Numba, torch does, with equal results.
"""

from __future__ import annotations

from functools import lru_cache
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pluria.numbers import kernel
from pluria.numbers.members import Differences

BITS = {torch.float32: 31, torch.float64: 63}
"""How many bits the pattern of a magnitude has."""


def patterns(values: Tensor) -> Tensor:
    """Bits of |x| as integers of the same width: int32 for float32, int64 for float64."""
    kind = torch.int32 if values.dtype == torch.float32 else torch.int64
    return values.view(kind) & torch.iinfo(kind).max


def histogram(
    values: Tensor | Differences, prefix: Tensor, shift: int, bits: int, known: Tensor | None = None
) -> Tensor:
    """How often each pattern occurs: int32 `[J, R, 2^bits]` of `values` `[R, n]`.

    Counted are the `bits` bits above the lowest `shift`, of those elements of row r whose bits above them equal
    `prefix[j, r]`. Zeros count all where no bits are above. `known` is an earlier histogram, which is added to and
    returned. Raises TypeError for other dtypes than float32 and float64.
    """
    if values.dtype not in BITS:
        raise TypeError(f"magnitudes are ranked in float32 or float64; got {values.dtype}")
    found = torch.zeros((*prefix.shape, 2**bits), dtype=torch.int32, device=values.device) if known is None else known
    for j in range(len(found)):
        if isinstance(values, Tensor) and not kernel.available(values.device):
            _counted_by_torch(found[j], values, prefix[j], shift, bits)
        else:
            _counted(found[j], values, prefix[j], shift, bits)
    return found


def _counted(found: Tensor, values: Tensor | Differences, wanted: Tensor, shift: int, bits: int) -> None:
    loops, word = _loops(), np.dtype(np.uint64 if values.dtype == torch.float64 else np.uint32)
    if isinstance(values, Tensor):
        rows: tuple[Any, ...] = (values.contiguous().numpy().view(word), None, False)
    else:
        rows = values.arrays
    top, at, above = word.type(2 ** BITS[values.dtype] - 1), word.type(shift), shift + bits
    tables, given = found.numpy(), (np.empty(loops.PART, word), *rows, top)
    if above == BITS[values.dtype]:
        loops.count_all(tables, *given, at)
        return
    least = (wanted << above).numpy().astype(word)
    most = least + word.type(2**above - 1)
    if bits == 0:
        loops.count_equal(tables[:, 0], *given, least, most)
    else:
        loops.count_within(tables, *given, least, most, at)


def _counted_by_torch(found: Tensor, values: Tensor, wanted: Tensor, shift: int, bits: int) -> None:
    words = patterns(values)
    for table, row, prefix in zip(found, words, wanted, strict=True):
        own = row[row >> (shift + bits) == prefix] >> shift
        table += torch.bincount((own & (2**bits - 1)).long(), minlength=2**bits)


@lru_cache(maxsize=1)
def _loops() -> ModuleType:
    from pluria.numbers import compiled_radix

    return compiled_radix
