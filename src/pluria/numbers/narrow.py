"""Floats to fewer bits with one rounding. torch takes float64 to 16 bits through float32, and so rounds twice.

    z = x to odd: x where float32 holds it, else that of its two neighbours whose last bit is one
    z to 16 bits, nearest = x to 16 bits, nearest        since float32 has two bits more than 16 bits need, and z says
                                                         on which side of every midpoint x lies

Source: Boldo and Melquiond, "Emulation of a FMA and correctly rounded sums: proved algorithms using rounding to odd",
IEEE Transactions on Computers 2008.
"""

from __future__ import annotations

import torch
from torch import Tensor


def narrowed(values: Tensor, dtype: torch.dtype) -> Tensor:
    """`values` in `dtype`, each rounded once to the nearest, ties to the even pattern.

    >>> above = torch.tensor([1 + 2.0**-8 + 2.0**-40], dtype=torch.float64)  # above a midpoint of bfloat16
    >>> narrowed(above, torch.bfloat16).item(), above.to(torch.bfloat16).item()
    (1.0078125, 1.0)
    """
    if values.dtype != torch.float64 or dtype.itemsize > 2:
        return values.to(dtype)
    near = values.to(torch.float32)
    wide = near.to(torch.float64)
    # One pattern less is the neighbour towards zero, for both signs.
    bits = near.view(torch.int32) - (wide.abs() > values.abs()).to(torch.int32)
    return (bits | (wide != values).to(torch.int32)).view(torch.float32).to(dtype)
