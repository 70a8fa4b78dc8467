"""Sums over several members' elements in one pass over memory, on a CPU: loops compiled by Numba.

Bit for bit the same as torch's operations one after the other, which stay where they are used, as the reference and
for all that is not served: other devices and dtypes, few elements, no Numba. The loops are in `compiled_members.py`.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import lru_cache
from types import ModuleType

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pluria.numbers import kernel

SIXTEEN = (torch.float16, torch.bfloat16)
FEWEST = 2**12
"""Elements of a row that are worth a compiled loop."""

LOADED = "pluria.numbers.compiled"
"""Loading Numba takes as long as torch takes for many elements: it is loaded where it is needed otherwise, or pays."""

LARGE = 2**28
"""Elements for which loading it pays."""


def prepare(count: int) -> None:
    """Load the loops if they are to go over as many elements as pay for it."""
    if count >= LARGE:
        kernel.available(torch.device("cpu"))


def serves(rows: Tensor, *dtypes: torch.dtype) -> bool:
    """Whether loops take rows `[K, n]`: long, each contiguous, of one of these dtypes, on a CPU, without gradient."""
    return (
        LOADED in sys.modules
        and rows.ndim == 2
        and rows.shape[1] >= FEWEST
        and rows.dtype in dtypes
        and rows.stride(1) == 1
        and not rows.requires_grad
        and type(rows) is Tensor
        and kernel.available(rows.device)
    )


def weighted_sum(rows: Tensor, weights: Sequence[float]) -> Tensor:
    """sum_k w_k x_k, float32 `[n]`, of rows `[K, n]` of 16 bits or float32; a row of weight zero is not read."""
    out = torch.empty(rows.shape[1])
    used = [k for k, weight in enumerate(weights) if weight != 0]
    mass = np.array([weights[k] for k in used], np.float32)
    taken = rows if len(used) == len(rows) else rows[used]
    if rows.dtype == torch.float32:
        _loops().sum_wide(out.numpy(), taken.numpy(), mass)
    else:
        _loops().sum_narrow(out.numpy(), _patterns(taken), mass, rows.dtype == torch.float16)
    return out


def differences(rows: Tensor) -> Tensor:
    """Rows `[K + 1, n]` of 16 bits, each less the last one: float32 `[K, n]`."""
    out = torch.empty((len(rows) - 1, rows.shape[1]))
    _loops().subtract(out.numpy(), _patterns(rows), rows.dtype == torch.float16)
    return out


def keep(values: Tensor, low: Tensor, high: Tensor, cut: Tensor) -> None:
    """Make zero, in place, what is too small: in row r, patterns of |x| below `low[r]` before the index `cut[r]`,
    and below `high[r]` from there on.

    values   `[R, n]` float32 or float64; low, high, cut   int64 `[R]`
    """
    word = np.dtype(np.uint32 if values.dtype == torch.float32 else np.uint64)
    top = word.type(2 ** (8 * word.itemsize - 1) - 1)
    bounds = low.numpy().astype(word), high.numpy().astype(word), cut.contiguous().numpy()
    _loops().keep(values.numpy().view(word), top, word.type(0), *bounds)


def elected(rows: Tensor, votes: Tensor, taken: Sequence[float], mass: Sequence[float], tie: float) -> Tensor:
    """Sums of mass_k x_k over sums of taken_k, float32 `[n]`, of those rows `[K, n]` that have the votes' sign."""
    out = torch.empty_like(votes)
    given = np.array(taken, np.float32), np.array(mass, np.float32), np.float32(tie)
    _loops().elect(out.numpy(), rows.numpy(), votes.numpy(), *given)
    return out


def finite(rows: Tensor) -> bool:
    """Whether all of `[K, n]`, of 16 bits, are finite."""
    exponent = np.uint16(0x7C00 if rows.dtype == torch.float16 else 0x7F80)
    return bool(_loops().all_below(_patterns(rows), exponent))


def _patterns(values: Tensor) -> NDArray[np.uint16]:
    return values.view(torch.int16).numpy().view(np.uint16)


@lru_cache(maxsize=1)
def _loops() -> ModuleType:
    from pluria.numbers import compiled_members

    return compiled_members
