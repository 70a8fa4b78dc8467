"""Sums over several members' elements in one pass over memory, on a CPU: loops compiled by Numba.

Bit for bit the same as torch's operations one after the other, which stay where they are used, as the reference and
for all that is not served: other devices and dtypes, few elements, no Numba. The loops are in `compiled_members.py`.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from types import ModuleType
from typing import Any

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


Bounds = tuple[Tensor, Tensor, Tensor]
"""int64 `[R]` each: patterns of row r from `low[r]` on stay before the index `cut[r]`, from `high[r]` on behind it."""


@dataclass(frozen=True)
class Differences:
    """float32 `[K, n]`: rows `[K + 1, n]` of 16 bits, each less the last. Loops take the rows as they are stored."""

    rows: Tensor

    dtype = torch.float32

    @property
    def shape(self) -> torch.Size:
        """Of what they are as one tensor."""
        return torch.Size((len(self.rows) - 1, self.rows.shape[1]))

    @property
    def device(self) -> torch.device:
        """Where the rows are."""
        return self.rows.device

    @property
    def arrays(self) -> tuple[NDArray[np.uint16], NDArray[np.uint16], bool]:
        """Patterns `[K, n]` and `[n]`, and whether they are float16."""
        held = _patterns(self.rows)
        return held[:-1], held[-1], self.rows.dtype == torch.float16

    def __len__(self) -> int:
        return len(self.rows) - 1

    def __getitem__(self, row: int) -> Tensor:
        return self.rows[row].float() - self.rows[-1].float()


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


def keep(values: Tensor, bounds: Bounds) -> None:
    """Make zero, in place, what is too small in `values` `[R, n]`, float32 or float64."""
    word = np.dtype(np.uint32 if values.dtype == torch.float32 else np.uint64)
    top = word.type(2 ** (8 * word.itemsize - 1) - 1)
    _loops().keep(values.numpy().view(word), top, word.type(0), *_words(bounds, word))


def elected(rows: Tensor, votes: Tensor, taken: Sequence[float], mass: Sequence[float], tie: float) -> Tensor:
    """Sums of mass_k x_k over sums of taken_k, float32 `[n]`, of those rows `[K, n]` that have the votes' sign."""
    out = torch.empty_like(votes)
    given = np.array(taken, np.float32), np.array(mass, np.float32), np.float32(tie)
    _loops().elect(out.numpy(), rows.numpy(), votes.numpy(), *given)
    return out


def mean_of_elected(
    apart: Differences,
    bounds: Bounds,
    voices: Sequence[float],
    taken: Sequence[float],
    mass: Sequence[float],
    tie: float,
    scale: float,
) -> Tensor:
    """The base plus `scale` times what `elected` gives for differences that `keep` has kept, float32 `[n]`.

    The votes are the sum of what is kept, each row times its voice.
    """
    out = torch.empty(apart.shape[1])
    given = (np.array(each, np.float32) for each in (voices, taken, mass))
    _passes().mean_of_elected(out.numpy(), _kept(apart, bounds), *given, np.float32(tie), np.float32(scale))
    return out


def sum_of_signs(apart: Differences, bounds: Bounds, voices: Sequence[float]) -> int:
    """The number of places where the votes are above zero, less that of those where they are below."""
    return int(_passes().sum_of_signs(_kept(apart, bounds), np.array(voices, np.float32)))


def _kept(apart: Differences, bounds: Bounds) -> tuple[Any, ...]:
    """Rows and what stays of them, as `compiled_elect.trim` takes them."""
    words = _words(bounds, np.dtype(np.uint32))
    return _patterns(apart.rows), apart.rows.dtype == torch.float16, np.uint32(0), *words


def _words(bounds: Bounds, word: np.dtype[Any]) -> tuple[NDArray[Any], NDArray[Any], NDArray[np.int64]]:
    low, high, cut = bounds
    return low.numpy().astype(word), high.numpy().astype(word), cut.contiguous().numpy()


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


@lru_cache(maxsize=1)
def _passes() -> ModuleType:
    from pluria.numbers import compiled_elect

    return compiled_elect
