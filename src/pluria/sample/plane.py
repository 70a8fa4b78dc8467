"""Planes, paths and interpolations between networks, as ensembles: a landscape is `predict` and a score per member.

    plane  w(x, y) = a + x u + y v,  u along b - a, v along c - a without its part along u, both of unit length
    path   straight pieces through the points, equally spaced in each piece

Source of the plane: Garipov et al., "Loss Surfaces, Mode Connectivity, and Fast Ensembling of DNNs", NeurIPS 2018.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pluria.core.ensemble import Ensemble
from pluria.core.family import Affine, Family, Shared
from pluria.core.params import Params, check_same, memory


@dataclass(frozen=True)
class Plane:
    """Members on a grid, row by row: `coordinates` `[K, 2]` and `anchors` `[3, 2]` are distances in weight space."""

    ensemble: Ensemble
    coordinates: Tensor
    anchors: Tensor
    points: tuple[int, int]


def plane(a: Params, b: Params, c: Params, *, points: int = 11, margin: float = 0.1) -> Plane:
    """A grid of `points` x `points` members over the box around three networks, wider by `margin` on every side.

    Raises ValueError where the three lie on one line.
    """
    check_same([a, b, c])
    names = _moving([a, b, c])
    gram = torch.stack([torch.stack([_inner(p, q, a, names) for q in (b, c)]) for p in (b, c)])
    length = gram[0, 0].sqrt()
    along = gram[0, 1] / length
    height = (gram[1, 1] - along**2).clamp(min=0).sqrt()
    # Three float32 networks on one line are off it by their rounding.
    if not float(height) > 1e-5 * float(gram[1, 1].sqrt()) or not float(length) > 0:
        raise ValueError("the three networks lie on one line, so they span no plane")
    anchors = torch.stack(
        [torch.zeros(2, dtype=torch.float64), torch.stack([length, 0 * length]), torch.stack([along, height])]
    )
    xs, ys = (_ticks(anchors[:, axis], points, margin) for axis in (0, 1))
    grid = torch.stack(torch.meshgrid(xs, ys, indexing="xy"), dim=-1).reshape(-1, 2)
    # In terms of b - a and c - a, which keep the tensors' own precision: x u + y v.
    second = grid[:, 1] / height
    steps = torch.stack([(grid[:, 0] - second * along) / length, second], dim=1)
    return Plane(_affine(a, [b, c], steps, names), grid, anchors, (points, points))


def path(points: Sequence[Params], *, steps: int = 11) -> Ensemble:
    """Members on the straight pieces through `points`, `steps` on each piece, ends included once.

    Raises ValueError for fewer than two points or steps.
    """
    if len(points) < 2 or steps < 2:
        raise ValueError(f"a path needs two points and two steps; got {len(points)} and {steps}")
    check_same(points)
    pieces = len(points) - 1
    t = torch.linspace(0, pieces, pieces * (steps - 1) + 1, dtype=torch.float64)
    shares = (1 - (t[:, None] - torch.arange(pieces + 1)).abs()).clamp(min=0)
    return _affine(points[0], points[1:], shares[:, 1:], _moving(points))


def _affine(origin: Params, ends: Sequence[Params], coordinates: Tensor, names: Sequence[str]) -> Ensemble:
    made: dict[Hashable, Family] = {}
    places = _places([origin, *ends])
    for name, value in origin.items():
        if places[name] in made:
            continue
        start = value.detach().clone()
        directions = [end[name].detach().to(torch.float64) - start.to(torch.float64) for end in ends]
        moved = Affine(start, torch.stack(directions), coordinates) if name in names else Shared(start)
        made[places[name]] = moved
    return Ensemble({name: made[place] for name, place in places.items()}, tuple(range(len(coordinates))))


def _places(points: Sequence[Params]) -> dict[str, Hashable]:
    """Equal for names that are tied in every network."""
    return {name: tuple(memory(params[name]) for params in points) for name in points[0]}


def _moving(points: Sequence[Params]) -> list[str]:
    """Names of the floating tensors, one for each: tied ones would count twice in a distance."""
    places = _places(points)
    first = {places[name]: name for name in reversed(list(places)) if points[0][name].is_floating_point()}
    return [name for name, place in places.items() if first.get(place) == name]


def _inner(p: Params, q: Params, a: Params, names: Sequence[str]) -> Tensor:
    total = torch.zeros((), dtype=torch.float64)
    for name in names:
        origin, one, other = (params[name].detach().to(torch.float64) for params in (a, p, q))
        total += ((one - origin) * (other - origin)).sum().cpu()
    return total


def _ticks(anchors: Tensor, points: int, margin: float) -> Tensor:
    low, high = float(anchors.min()), float(anchors.max())
    return torch.linspace(low - margin * (high - low), high + margin * (high - low), points, dtype=torch.float64)
