"""Number systems: a sorted grid of values around zero, scaled to fit a group of weights.

    integer    symmetric  {-(2^(b-1) - 1) .. 2^(b-1) - 1};  asymmetric  {-z .. 2^b - 1 - z}, one zero point z per group
    minifloat  sign, exponent and mantissa bits: FP8 E4M3 and E5M2, FP6 E2M3 and E3M2, FP4 E2M1, BF16, FP16
    normal     the 16 quantiles of NormalFloat (Dettmers et al., "QLoRA", 2023)

A weight w with scale s is v = w / s on the unit grid; it lies between two neighbours low <= v <= high. Sources of the
minifloats: the OCP "Microscaling Formats" specification 1.0 and "8-bit floating point" (Micikevicius et al. 2022).
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from functools import lru_cache
from statistics import NormalDist
from typing import Protocol

import torch
from torch import Tensor


class Format(Protocol):
    """A number system; values are float32 on the unit grid, codes are int64 in grid order (0 is the most negative)."""

    @property
    def name(self) -> str: ...
    @property
    def bits(self) -> int: ...
    def scale(self, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor | None]:
        """Scale and zero point (None where the grid is symmetric) of groups whose weights lie in [low, high]."""
        ...

    def neighbours(self, v: Tensor, zero: Tensor | None) -> tuple[Tensor, Tensor]:
        """The grid points around v, low <= v <= high; equal where v is on the grid; v beyond the grid is clamped."""
        ...

    def encode(self, value: Tensor, zero: Tensor | None) -> Tensor: ...
    def decode(self, code: Tensor, zero: Tensor | None) -> Tensor: ...


@dataclass(frozen=True)
class Integer:
    """b-bit integers, 2 <= b <= 8. Asymmetric grids hold zero exactly and are widened so that nothing clips."""

    bits: int
    symmetric: bool = True

    def __post_init__(self) -> None:
        if self.bits not in range(2, 9):
            raise ValueError(f"integer formats have 2 to 8 bits; got {self.bits}")

    @property
    def name(self) -> str:
        return f"int{self.bits}" + ("" if self.symmetric else "-asymmetric")

    @property
    def top(self) -> int:
        return (1 << (self.bits - 1)) - 1 if self.symmetric else (1 << self.bits) - 1

    def scale(self, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor | None]:
        if self.symmetric:
            return _positive(torch.maximum(-low, high) / self.top), None
        low, high = low.clamp(max=0.0), high.clamp(min=0.0)
        step = _positive((high - low) / self.top)
        # A zero point is an integer; at least one step on each side that is needed, then the step that covers both.
        zero = torch.round(-low / step).clamp(0, self.top)
        zero = torch.where(
            (low < 0) & (zero == 0), 1.0, torch.where((high > 0) & (zero == self.top), self.top - 1.0, zero)
        )
        below = torch.where(zero > 0, -low / zero.clamp(min=1), 0.0)
        above = torch.where(zero < self.top, high / (self.top - zero).clamp(min=1), 0.0)
        return _positive(torch.maximum(below, above)), zero

    def limits(self, zero: Tensor | None) -> tuple[Tensor | float, Tensor | float]:
        """Smallest and largest grid value."""
        return (-float(self.top), float(self.top)) if zero is None else (-zero, self.top - zero)

    def neighbours(self, v: Tensor, zero: Tensor | None) -> tuple[Tensor, Tensor]:
        # The clamp comes first: at a group's largest weight w / s can exceed the top by one unit in the last place.
        v = torch.clamp(v, *self.limits(zero))  # type: ignore[arg-type]
        return torch.floor(v), torch.ceil(v)

    def encode(self, value: Tensor, zero: Tensor | None) -> Tensor:
        return (value + (self.top if zero is None else zero)).to(torch.int64)

    def decode(self, code: Tensor, zero: Tensor | None) -> Tensor:
        return code.to(torch.float32) - (float(self.top) if zero is None else zero)


@dataclass(frozen=True)
class Minifloat:
    """Floating point with few bits, subnormals included; `largest` is the largest finite value.

    Formats narrower than 16 bits are scaled so that a group's largest weight lands on `largest`; 16-bit formats are
    not scaled, and weights beyond `largest` clip.
    """

    name: str
    exponent: int
    mantissa: int
    largest: float

    @property
    def bits(self) -> int:
        return 1 + self.exponent + self.mantissa

    def scale(self, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor | None]:
        if self.bits == 16:
            return torch.ones_like(low), None
        return _positive(torch.maximum(-low, high) / self.largest), None

    def neighbours(self, v: Tensor, zero: Tensor | None) -> tuple[Tensor, Tensor]:
        v = v.clamp(-self.largest, self.largest)
        spacing = torch.ldexp(torch.ones_like(v), self._exponent(v) - self.mantissa)
        return torch.floor(v / spacing) * spacing, torch.ceil(v / spacing) * spacing

    def _exponent(self, v: Tensor) -> Tensor:
        exponent = (torch.frexp(v).exponent - 1).clamp(min=self._smallest)
        return torch.where(v == 0, self._smallest, exponent)  # frexp gives zero the exponent 0

    def encode(self, value: Tensor, zero: Tensor | None) -> Tensor:
        exponent = self._exponent(value)
        # Division by 2^exponent first: 2^(mantissa - exponent) overflows float32 at the small end of bf16.
        steps = (value.abs() / torch.ldexp(torch.ones_like(value), exponent) * 2**self.mantissa).to(torch.int64)
        magnitude = (exponent.to(torch.int64) - self._smallest) * 2**self.mantissa + steps
        return torch.where(value < 0, -magnitude, magnitude) + self._top

    @property
    def _smallest(self) -> int:
        return 2 - (1 << (self.exponent - 1))

    @property
    def _top(self) -> int:
        return (1 << (self.exponent + self.mantissa)) - 1

    def decode(self, code: Tensor, zero: Tensor | None) -> Tensor:
        signed = code - self._top
        magnitude = signed.abs()
        octave = (magnitude // 2**self.mantissa - 1).clamp(min=0)
        steps = (magnitude - octave * 2**self.mantissa).to(torch.float32)
        return torch.ldexp(steps, octave + self._smallest - self.mantissa) * torch.sign(signed)


@dataclass(frozen=True)
class NormalFloat:
    """NF4: 16 values at quantiles of the normal law, zero and +-1 among them."""

    name: str = "nf4"
    bits: int = 4

    def scale(self, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor | None]:
        return _positive(torch.maximum(-low, high)), None

    def neighbours(self, v: Tensor, zero: Tensor | None) -> tuple[Tensor, Tensor]:
        levels = _nf4().to(v.device)
        v = v.clamp(-1.0, 1.0)
        above = torch.searchsorted(levels, v.contiguous())
        high = levels[above]
        return torch.where(high == v, high, levels[(above - 1).clamp(min=0)]), high

    def encode(self, value: Tensor, zero: Tensor | None) -> Tensor:
        return torch.searchsorted(_nf4().to(value.device), value.contiguous())

    def decode(self, code: Tensor, zero: Tensor | None) -> Tensor:
        return _nf4().to(code.device)[code]


FORMATS: dict[str, Format] = {
    **{f"int{b}": Integer(b) for b in range(2, 9)},
    **{f"int{b}-asymmetric": Integer(b, symmetric=False) for b in range(2, 9)},
    "fp8-e4m3": Minifloat("fp8-e4m3", 4, 3, 448.0),
    "fp8-e5m2": Minifloat("fp8-e5m2", 5, 2, 57344.0),
    "fp6-e2m3": Minifloat("fp6-e2m3", 2, 3, 7.5),
    "fp6-e3m2": Minifloat("fp6-e3m2", 3, 2, 28.0),
    "fp4-e2m1": Minifloat("fp4-e2m1", 2, 1, 6.0),
    "nf4": NormalFloat(),
    "bf16": Minifloat("bf16", 8, 7, 2.0**127 * (2 - 2.0**-7)),
    "fp16": Minifloat("fp16", 5, 10, 65504.0),
}


def number_format(name: str | Format) -> Format:
    """The format called `name`; a Format is returned as it is.

    >>> number_format("INT-5").bits
    5
    """
    if not isinstance(name, str):
        return name
    plain = name.lower().replace("int-", "int").replace("_", "-")
    if plain not in FORMATS:
        near = difflib.get_close_matches(plain, FORMATS, 3) or list(FORMATS)
        raise ValueError(f"unknown number format {name!r}; did you mean {', '.join(near)}? Integers have 2 to 8 bits")
    return FORMATS[plain]


def _positive(scale: Tensor) -> Tensor:
    """A group of zeros gets scale one and stays zero; a scale below the normal range would divide to infinity."""
    return torch.where(scale > 0, scale.clamp(min=torch.finfo(torch.float32).tiny), 1.0)


@lru_cache(maxsize=1)
def _nf4() -> Tensor:
    quantile, offset = NormalDist().inv_cdf, 0.9677083
    upper = [quantile(offset + (0.5 - offset) * i / 8) for i in range(8)]
    lower = [-quantile(offset + (0.5 - offset) * i / 7) for i in range(7)]
    levels = sorted([*lower, 0.0, *upper])
    return torch.tensor([level / upper[0] for level in levels], dtype=torch.float32)
