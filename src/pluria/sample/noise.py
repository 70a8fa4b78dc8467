"""What was rounded, and with what noise: one row for each rounded tensor; and what that does to the layers' outputs.

noise         sqrt(sum Var) / |w|                           expected relative error of a stochastic member
nearest       |round(w) - w| / |w|                          output error   sqrt(tr(D H D^T) / tr(W H W^T)),  D = w_m - w
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from pluria.core.coded import Coded
from pluria.core.ensemble import Ensemble
from pluria.core.family import Family, Joined, block
from pluria.core.params import Params
from pluria.core.rounded import Rounded
from pluria.numbers.format import Integer
from pluria.numbers.grid import Grid, Layout
from pluria.numbers.rounding import clipped, round_nearest, variance
from pluria.sample.moments import Moments


@dataclass(frozen=True)
class LayerNoise:
    """Rounding of one tensor: how many weights, and relative errors (root sum of squares) against its own norm.

    Of members that are kept as codes the base is not known: `noise` is their spread around their mean, 0 for one
    member, and `nearest` None. `compensated` says that codes were made with error feedback; in codes from a file it
    shows where members lie more than one step apart.
    """

    name: str
    shape: tuple[int, ...]
    format: str
    granularity: str
    noise: float
    nearest: float | None
    clipped: float
    compensated: bool = False


def noise(ensemble: Ensemble) -> list[LayerNoise]:
    """One row for each rounded tensor of a low-precision ensemble, of its first base; of a union, its first part."""
    found = {name: _rounded(family) for name, family in ensemble.families.items()}
    first: dict[int, tuple[str, Rounded | Coded]] = {}
    for name, family in found.items():
        if family is not None:
            first.setdefault(id(family), (name, family))
    return [_row(f) if isinstance(f, Rounded) else _coded_row(name, f) for name, f in first.values()]


def left_alone(ensemble: Ensemble) -> list[str]:
    """Names of the tensors that are not rounded."""
    return [name for name, family in ensemble.families.items() if _rounded(family) is None]


def output_error(ensemble: Ensemble, moments: Moments, base: Params) -> dict[str, float]:
    """Relative error of each layer's outputs, a root mean square over the members and the inputs of `moments`.

    By the name of the layer's weight, once for tied names; 0 where members leave it alone. `base` is what members are
    compared with, as `params_of(model)`. Raises ValueError where the moments are of a network of other names or shapes.
    """
    seen: set[int] = set()
    found: dict[str, float] = {}
    for name, second in moments.second.items():
        layout, family = moments.layouts[name], ensemble.families.get(name)
        if family is None or name not in base or not family.shape.numel() == base[name].numel() == layout.numel:
            raise ValueError(f"the moments are of another network: they have {name!r} with {layout}")
        if id(family) not in seen:
            seen.add(id(family))
            errors = [_power(family, member, base[name], layout, second) for member in ensemble.members]
            whole = _mean_square(layout.to_rows(base[name].detach()), second) or 1.0
            found[name] = math.sqrt(sum(errors) / len(errors) / whole)
    return found


def _rounded(family: Family) -> Rounded | Coded | None:
    """The rounded family itself, or the first in a union."""
    if isinstance(family, Joined):
        return next((part for part in map(_rounded, family.parts) if part is not None), None)
    return family if isinstance(family, Rounded | Coded) else None


def _row(family: Rounded) -> LayerNoise:
    value, grid = family.parts(0)
    norm = float(value.to(torch.float64).norm()) or 1.0
    closest = round_nearest(value, grid, torch.empty(value.shape, dtype=torch.float32, device=value.device))
    return LayerNoise(
        family.name,
        tuple(family.shape),
        family.format.name,
        str(family.granularity),
        float(variance(value, grid).to(torch.float64).sum().sqrt()) / norm if family.coupling else 0.0,
        float((closest.to(torch.float64) - value.to(torch.float64)).norm()) / norm,
        clipped(value, grid) / max(value.numel(), 1),
    )


def _coded_row(name: str, family: Coded) -> LayerNoise:
    spread, far = _spread(family)
    # An `InitVar`: it is there, but type checkers do not see it.
    ends: float | None = getattr(family, "clipped", None)
    return LayerNoise(
        name,
        tuple(family.shape),
        family.grids[0].format.name,
        _granularity(family.grids[0], family.shape.numel()),
        spread,
        None,
        ends or 0.0,
        ends is not None or far,
    )


def _spread(family: Coded) -> tuple[float, bool]:
    """Relative spread of all members around their mean, and whether a weight moves by more than a step of its grid."""
    count = family.size or 1
    first = block(family, [0], dtype=torch.float64)[0]
    total, low, high, squares = (torch.zeros_like(first) for _ in range(4))
    for member in range(1, count):
        # Steps from the first member are small numbers: nothing cancels in their squares.
        step = block(family, [member], dtype=torch.float64)[0] - first
        total, squares = total + step, squares + step.square()
        low, high = torch.minimum(low, step), torch.maximum(high, step)
    scale = family.grids[0].spread(0, first.numel())[0].to(first)
    even = isinstance(family.grids[0].format, Integer) and len(family.grids) == 1
    far = even and bool(((high - low).flatten() > 1.5 * scale).any())
    variances = (squares - total.square() / count) / max(count - 1, 1)
    return float(variances.sum().clamp(min=0).sqrt()) / (float((first + total / count).norm()) or 1.0), far


def _granularity(grid: Grid, count: int) -> str:
    if grid.layout.inputs == count and grid.group == count:
        return "tensor"
    return "channel" if grid.group == grid.layout.inputs else str(grid.group)


def _power(family: Family, member: int, base: Tensor, layout: Layout, second: Tensor) -> float:
    """Mean square of what a member of a family changes in its layer's outputs, summed over the outputs."""
    change = block(family, [member], dtype=torch.float64)[0] - base.detach().to(dtype=torch.float64, device="cpu")
    return _mean_square(layout.to_rows(change), second)


def _mean_square(rows: Tensor, second: Tensor) -> float:
    """tr(W H W^T) of rows `[rows, inputs]` and moments `[blocks, inputs, inputs]`."""
    parts = rows.reshape(len(second), -1, rows.shape[1]).to(second)
    return float((parts @ second * parts).sum())
