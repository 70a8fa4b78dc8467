"""Whether the parts of a family fit together: what a class does not ask of its own fields, a file must.

Each check raises ValueError. They run before writing too, so that whatever is written can be read again.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from pluria.core.coded import Coded
from pluria.core.factored import Factored, spread
from pluria.core.family import Affine, Family, Joined, Stacked, map_tensors
from pluria.core.gaussian import Gaussian
from pluria.core.masked import Masked
from pluria.core.rounded import Rounded
from pluria.numbers.coupling import BITS
from pluria.numbers.format import Format, Integer, Minifloat, NormalFloat
from pluria.numbers.grid import Grid, Layout

DECODED = ("float64", "float32", "float16", "bfloat16")
"""Dtypes that codes decode to."""

LARGEST = 2**48
"""No axis is this long."""


def check_family(family: Family) -> None:
    """Raise ValueError where the parts of a family do not fit together; families inside it were checked before."""
    CHECKS.get(type(family), lambda _: None)(family)


def check_members(family: Family, members: Sequence[int]) -> None:
    """Raise ValueError where a family does not have one of the members."""
    own = getattr(family, "index", None)
    kept = range(_end(family)) if own is None else set(own)
    if missing := [member for member in members if member < 0 or member not in kept]:
        there = f"0..{_end(family) - 1}" if own is None else sorted(kept)
        raise ValueError(f"member {missing[0]} does not exist; the members are {there}")


def inner(value: Any) -> Iterator[Any]:
    """The dataclasses that are fields of a dataclass, alone or in tuples."""
    for each in dataclasses.fields(value):
        item = getattr(value, each.name)
        yield from (i for i in (item if isinstance(item, tuple) else (item,)) if dataclasses.is_dataclass(i))


def _end(family: Family) -> int:
    """One more than the last member; where there is no end, the random addresses set one."""
    if family.size is not None:
        return family.size
    return 2**BITS * len(family.bases) if isinstance(family, Rounded) else 2**32


def _stacked(family: Stacked) -> None:
    if family.values.ndim == 0 or not len(family.values):
        raise ValueError(f"stacked values need a member axis with a member; got shape {tuple(family.values.shape)}")
    if family.index is not None and len(set(family.index)) != len(family.index):
        raise ValueError("two rows are kept for the same member")


def _affine(family: Affine) -> None:
    coordinates, directions = family.coordinates, family.directions
    if coordinates.ndim != 2 or not _float(coordinates.dtype):
        raise ValueError(f"coordinates are floats [K, D]; got {coordinates.dtype} {tuple(coordinates.shape)}")
    if directions.shape != (coordinates.shape[1], *family.shape):
        wanted = (coordinates.shape[1], *family.shape)
        raise ValueError(f"directions have shape {tuple(directions.shape)}; wanted {wanted}")


def _joined(family: Joined) -> None:
    if not family.parts or len(family.parts) != len(family.ids):
        raise ValueError(f"{len(family.parts)} parts are joined by {len(family.ids)} lists of members")
    for one, other in pairwise(family.parts):
        if (one.shape, one.dtype) != (other.shape, other.dtype):
            kinds = [f"{tuple(part.shape)} {part.dtype}" for part in (one, other)]
            raise ValueError(f"joined parts have one shape and dtype; got {' and '.join(kinds)}")
    for part, ids in zip(family.parts, family.ids, strict=True):
        check_members(part, ids)


def _gaussian(family: Gaussian) -> None:
    check_members(family.mean, [0])
    if not _float(family.dtype):
        raise ValueError(f"noise is added to floats of 16 bits or more; the mean is {family.dtype}")
    if family.std.shape != family.shape or not _float(family.std.dtype) or not bool((family.std >= 0).all()):
        raise ValueError(
            f"std is float, not negative, of the mean's shape {tuple(family.shape)}; "
            f"got {family.std.dtype} {tuple(family.std.shape)}"
        )
    factors = family.factors
    if factors is not None and (factors.ndim == 0 or factors.shape[1:] != family.shape):
        raise ValueError(f"factors have shape {tuple(factors.shape)}; wanted [R, *{tuple(family.shape)}]")


def _rounded(family: Rounded) -> None:
    if not _float(family.dtype):
        raise ValueError(f"floats of 16 bits or more are rounded; the base is {family.dtype}")
    if not family.bases:
        raise ValueError("a rounded family needs a base member")
    check_members(family.base, family.bases)
    _layout(family.layout, family.shape.numel())
    if isinstance(family.granularity, int):
        _group(family.granularity, family.layout)
    _format(family.format)
    map_tensors(family.base, _finite)


def _coded(family: Coded) -> None:
    if family.kind not in DECODED:
        raise ValueError(f"codes decode to {', '.join(DECODED)}; got {family.kind!r}")
    if not all(0 <= axis < LARGEST for axis in family.dims):
        raise ValueError(f"the axes of a shape are 0..{LARGEST - 1}; got {family.dims}")
    count, planes = math.prod(family.dims), family.planes
    for grid in family.grids:
        _grid(grid, count)
    if len({grid.format for grid in family.grids}) != 1:
        formats = [grid.format.name for grid in family.grids]
        raise ValueError(f"codes need a grid, and all grids one format; got {formats}")
    _bytes(family.codes, family.grids[0].format.bits, count, "codes")
    if planes is not None:
        _bytes(planes, 1, count, "planes")
        if len(family.codes) != 1 or len(family.grids) != 1:
            raise ValueError(f"bit planes share one row of codes and one grid; got {len(family.codes)} rows")
    elif len(family.grids) not in (1, len(family.codes)):
        raise ValueError(f"one grid for all members or one for each; got {len(family.grids)} for {len(family.codes)}")


def _masked(family: Masked) -> None:
    _bytes(family.masks, 1, family.shape.numel(), "masks")
    if not len(family.masks):
        raise ValueError("masks need a member axis with a member")


def _factored(family: Factored) -> None:
    left, right = family.left, family.right
    thin = left.ndim == right.ndim == 3 and left.shape[2] == right.shape[1] and len(left) == len(right) > 0
    if not thin or left.shape[1] != family.shape[:1].numel() or not (_float(left.dtype) and _float(right.dtype)):
        raise ValueError(
            f"factors are floats [K, {family.shape[:1].numel()}, r] and [K, r, columns]; got {left.dtype} "
            f"{tuple(left.shape)} and {right.dtype} {tuple(right.shape)}"
        )
    if not _float(family.dtype):
        raise ValueError(f"factors go with floats of 16 bits or more; the base is {family.dtype}")
    spread(family.shape, right.shape[2])


def _bytes(packed: Tensor, bits: int, count: int, what: str) -> None:
    wanted = (count * bits + 7) // 8
    if packed.dtype is not torch.uint8 or packed.ndim != 2 or packed.shape[1] != wanted:
        raise ValueError(
            f"{what}: {count} codes of {bits} bits are uint8 [K, {wanted}]; got {packed.dtype} {tuple(packed.shape)}"
        )


def _grid(grid: Grid, count: int) -> None:
    _format(grid.format)
    _layout(grid.layout, count)
    _group(grid.group, grid.layout)
    wanted = (grid.layout.rows, grid.layout.inputs // grid.group)
    for what, value in (("scale", grid.scale), ("zero", grid.zero)):
        if value is not None and (value.shape != wanted or value.dtype is not torch.float32):
            raise ValueError(f"{what} is float32 {wanted}; got {value.dtype} {tuple(value.shape)}")
    if not bool((torch.isfinite(grid.scale) & (grid.scale > 0)).all()):
        raise ValueError("a scale is not a positive finite number")
    asymmetric = isinstance(grid.format, Integer) and not grid.format.symmetric
    if asymmetric is (grid.zero is None):
        raise ValueError(f"{grid.format.name} {'needs' if asymmetric else 'has no'} zero points")
    if grid.zero is not None:
        _finite(grid.zero)


def _layout(layout: Layout, count: int) -> None:
    if min(layout.blocks, layout.outer, layout.channels, layout.inner) < 1 or layout.numel != count:
        raise ValueError(f"the layout has {layout.numel} elements and the tensor {count}: {layout}")


def _group(group: int, layout: Layout) -> None:
    if group < 1 or layout.inputs % group:
        raise ValueError(f"groups of {group} do not divide the {layout.inputs} inputs of each output channel")


def _format(format: Format) -> None:
    if isinstance(format, NormalFloat) and format.bits != 4:
        raise ValueError(f"NormalFloat has 4 bits; got {format.bits}")
    if isinstance(format, Minifloat):
        fits = 2 <= format.exponent <= 8 and 0 <= format.mantissa <= 15 - format.exponent
        if not fits or not 0 < format.largest < 2.0 ** (2 ** (format.exponent - 1) + 1):
            raise ValueError(f"no minifloat of up to 16 bits has these numbers: {format}")


def _float(dtype: torch.dtype) -> bool:
    return dtype.is_floating_point and dtype.itemsize > 1


def _finite(tensor: Tensor) -> Tensor:
    if _float(tensor.dtype) and not bool(torch.isfinite(tensor).all()):
        raise ValueError("NaN or Inf among numbers that are rounded")
    return tensor


CHECKS: dict[type, Callable[[Any], None]] = {
    Stacked: _stacked,
    Affine: _affine,
    Joined: _joined,
    Gaussian: _gaussian,
    Rounded: _rounded,
    Coded: _coded,
    Masked: _masked,
    Factored: _factored,
}
"""What each kind of family is asked; a shared value has nothing to fit to."""
