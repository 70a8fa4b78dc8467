"""One rounding of float64 to 16 bits: against the nearest of the three patterns around it, by fractions."""

from __future__ import annotations

from fractions import Fraction

import pytest
import torch
from torch import Tensor

from pluria.numbers.narrow import narrowed

NARROW = (torch.float16, torch.bfloat16)


def nearest(value: float, dtype: torch.dtype) -> float:
    """The number of `dtype` that is nearest, of two the one whose last bit is zero; infinite from half a step above
    the largest on."""
    pattern = int(torch.tensor(abs(value), dtype=torch.float64).to(dtype).view(torch.int16))
    top = int(torch.tensor(torch.inf, dtype=dtype).view(torch.int16))
    step = Fraction(float(at(top - 1, dtype))) - Fraction(float(at(top - 2, dtype)))
    best = None
    for near in range(max(pattern - 1, 0), min(pattern + 1, top) + 1):
        held = Fraction(float(at(top - 1, dtype))) + step if near == top else Fraction(float(at(near, dtype)))
        away = abs(held - Fraction(abs(value))), near & 1
        best = min(best, (away, near)) if best else (away, near)
    assert best is not None
    return float(at(best[1], dtype)) * (-1 if value < 0 else 1)


def at(pattern: int, dtype: torch.dtype) -> Tensor:
    return torch.tensor(pattern, dtype=torch.int16).view(dtype).double()


def hard(dtype: torch.dtype) -> Tensor:
    """Midpoints between neighbours and numbers a little off, of all exponents, with subnormals and overflow."""
    top = int(torch.tensor(torch.inf, dtype=dtype).view(torch.int16))
    patterns = torch.arange(0, top - 1, 37).to(torch.int16)
    low, high = (each.view(dtype).double() for each in (patterns, patterns + 1))
    middle, step = (low + high) / 2, high - low
    largest = torch.finfo(dtype).max
    beyond = torch.tensor([largest, largest * 1.0001, largest * 1.1, 1e300, 1e-60, 0.0, 5e-324], dtype=torch.float64)
    values = torch.cat([middle, middle + step * 2.0**-40, middle - step * 2.0**-40, low + step * 0.3, beyond])
    return torch.cat([values, -values])


@pytest.mark.parametrize("dtype", NARROW)
def test_every_number_is_rounded_once(dtype: torch.dtype) -> None:
    values = hard(dtype)
    wanted = torch.tensor([nearest(value, dtype) for value in values.tolist()], dtype=torch.float64)
    assert torch.equal(narrowed(values, dtype).double(), wanted)
    assert not torch.equal(values.to(dtype).double(), wanted)  # through float32, which rounds twice


@pytest.mark.parametrize("dtype", NARROW)
def test_what_is_no_number_stays_that(dtype: torch.dtype) -> None:
    odd = narrowed(torch.tensor([torch.nan, torch.inf, -torch.inf, -0.0], dtype=torch.float64), dtype)
    assert odd[0].isnan()
    assert odd[1:3].tolist() == [torch.inf, -torch.inf]
    assert bool(odd[3].signbit())


def test_other_dtypes_are_as_torch_has_them() -> None:
    values = torch.randn(100, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert torch.equal(narrowed(values, torch.float32), values.to(torch.float32))
    assert torch.equal(narrowed(values.float(), torch.bfloat16), values.float().to(torch.bfloat16))
    assert narrowed(values, torch.float64) is values
