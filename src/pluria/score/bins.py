"""Bins of values: equal widths on [0, 1], or equal masses.

equal width   b = floor(B v), the last bin closed at 1
equal mass    b = floor(B * share of values below v)
"""

import torch
from torch import Tensor


def equal_width(values: Tensor, bins: int) -> Tensor:
    """Bin `[N]` of each of the values `[N]` in [0, 1]: [b/B, (b+1)/B), and 1 belongs to the last one.

    >>> equal_width(torch.tensor([0.0, 0.5, 1.0]), 2)
    tensor([0, 1, 1])
    """
    return (values * check_bins(bins)).floor().long().clamp(max=bins - 1)


def equal_mass(values: Tensor, bins: int) -> Tensor:
    """Bin `[N]` of each of the values `[N]` by how many lie below; equal values share a bin, whatever their order.

    Where all values differ, the sizes of the bins differ by at most one.

    >>> equal_mass(torch.tensor([0.9, 0.2, 0.3, 0.8]), 2)
    tensor([1, 0, 0, 1])
    """
    below = torch.searchsorted(values.sort().values, values)
    return torch.div(below * check_bins(bins), len(values), rounding_mode="floor")


def check_bins(bins: int) -> int:
    """The number of bins; `ValueError` below 1."""
    if bins < 1:
        raise ValueError(f"bins must be at least 1, not {bins}")
    return bins
