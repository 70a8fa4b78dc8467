"""Spherical interpolation between two members, tensor by tensor or row by row.

    cos a = <x, y> / (|x| |y|)        merged = (sin((1 - t) a) x + sin(t a) y) / sin a

With `t` left out it is the weight of the second member. Almost parallel or vanishing tensors are averaged straight.
With `rows`, each row (of all axes but the first) has its own angle; with `task_vectors`, x and y are differences from a
base, to which the result is added (NuSLERP). Sources: Shoemake, "Animating rotation with quaternion curves", SIGGRAPH
1985; Goddard et al., "Arcee's MergeKit", EMNLP 2024.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor

from pluria.merge.rule import Pass, Piece, Rule, row_length

PARALLEL = 0.9995
"""Cosines above this are interpolated straight, since sin a is all rounding there."""


def slerp(*, t: float | None = None, rows: bool = False, task_vectors: bool = False) -> Rule:
    """The rule of spherical interpolation between two members, from the first at `t` 0 to the second at `t` 1.

    >>> from pluria.core.ensemble import stack
    >>> from pluria.merge.leafwise import leafwise
    >>> leafwise(stack([{"w": torch.tensor([1.0, 0.0])}, {"w": torch.tensor([0.0, 1.0])}]), slerp())
    {'w': tensor([0.7071, 0.7071])}
    """
    if t is not None and not 0 <= t <= 1:
        raise ValueError(f"t lies in [0, 1]; got {t}")
    combine = partial(_by_row if rows else _whole, t, task_vectors)
    passes = () if rows else (Pass(partial(_dots, task_vectors), lambda total, _: total),)
    return Rule(combine, passes, needs_base=task_vectors, members=2, pieces="row" if rows else "block")


def _ends(piece: Piece, task_vectors: bool) -> tuple[Tensor, Tensor]:
    one, other = piece.deltas if task_vectors else piece.values
    return one, other


def _dots(task_vectors: bool, piece: Piece, _: Any) -> Tensor:
    """<x, x>, <y, y> and <x, y> of a piece, float64 `[3]`."""
    x, y = (end.to(torch.float64) for end in _ends(piece, task_vectors))
    return torch.stack([x.square().sum(), y.square().sum(), (x * y).sum()])


def _whole(t: float | None, task_vectors: bool, piece: Piece, dots: Tensor) -> Tensor:
    x, y = _ends(piece, task_vectors)
    one, other = _shares(dots, float(piece.weights[1]) if t is None else t)
    mixed = x * float(one) + y * float(other)
    return mixed + piece.origin if task_vectors else mixed


def _by_row(t: float | None, task_vectors: bool, piece: Piece, _: Any) -> Tensor:
    x, y = (end.to(torch.float64).view(-1, row_length(piece.shape)) for end in _ends(piece, task_vectors))
    dots = torch.stack([x.square().sum(1), y.square().sum(1), (x * y).sum(1)])
    one, other = _shares(dots, float(piece.weights[1]) if t is None else t)
    mixed = (x * one[:, None] + y * other[:, None]).flatten()
    return mixed + piece.origin if task_vectors else mixed


def _shares(dots: Tensor, t: float) -> tuple[Tensor, Tensor]:
    """What x and y are multiplied with, for dots `[3, ...]`."""
    cosine = (dots[2] / (dots[0].sqrt() * dots[1].sqrt())).nan_to_num(1.0).clamp(-1, 1)
    angle = cosine.arccos()
    straight = cosine.abs() > PARALLEL
    sine = torch.where(straight, 1.0, angle.sin())
    one, other = ((share * angle).sin() / sine for share in (1 - t, t))
    return torch.where(straight, 1 - t, one), torch.where(straight, t, other)
