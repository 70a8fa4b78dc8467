"""Curves of low loss between two networks, and subspaces of them, learned without a rewritten layer.

    Bezier     w(t) = sum_j binomial(n, j) t^j (1 - t)^(n - j) p_j
    polygon    w(t) = sum_j max(0, 1 - |t n - j|) p_j
    curve      the ends are held, the bends learn E over t ~ U(0, 1) of L(w(t))
    subspace   all corners learn, at shares drawn evenly from the simplex

Sources: Garipov et al., "Loss Surfaces, Mode Connectivity, and Fast Ensembling of DNNs", NeurIPS 2018; Wortsman et al.,
"Learning Neural Network Subspaces", ICML 2021.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import comb
from typing import Literal

import torch
from torch import Tensor, nn

from pluria.core.model import tensors
from pluria.core.params import Params, check_same, params_of
from pluria.numbers.key import Key
from pluria.train.fresh import fresh_uniforms
from pluria.train.span import Span

Shape = Literal["bezier", "polygon"]


def curve(model: nn.Module, ends: Sequence[Params], *, bends: int = 1) -> Span:
    """A span from one end to the other, both held, with `bends` between them that begin on the straight line.

    Raises ValueError for other than two ends or no bend, CheckpointError for ends of another network.
    """
    if len(ends) != 2 or bends < 1:
        raise ValueError(
            f"a curve goes from one end to another by one bend or more; got {len(ends)} ends, {bends} bends"
        )
    check_same([tensors(model), *ends])
    first, last = ends
    line = [_between(first, last, j / (bends + 1)) for j in range(1, bends + 1)]
    return Span(model, [first, *line, last], held=(0, bends + 1))


def along(t: Tensor | float, points: int, *, shape: Shape = "bezier") -> Tensor:
    """The shares `[..., points]` of a curve's points at t in 0..1.

    >>> along(0.5, 3).tolist(), along(0.25, 3, shape="polygon").tolist()
    ([0.25, 0.5, 0.25], [0.5, 0.5, 0.0])
    """
    t, n = torch.as_tensor(t, dtype=torch.float64)[..., None], points - 1
    if bool(((t < 0) | (t > 1)).any()):
        raise ValueError("a curve is parametrised by t in 0..1")
    j = torch.arange(points, dtype=torch.float64)
    if shape == "polygon":
        return (1 - (t * n - j).abs()).clamp(min=0)
    if shape != "bezier":
        raise ValueError(f"a curve is 'bezier' or 'polygon'; got {shape!r}")
    return torch.tensor([comb(n, k) for k in range(points)], dtype=torch.float64) * t**j * (1 - t) ** (n - j)


def subspace(models: Sequence[nn.Module]) -> Span:
    """A span of which every corner is learned, begun at the parameters of each model; buffers are the first one's."""
    return Span(models[0], [params_of(model) for model in models])


def simplex_shares(corners: int, step: int, *, key: Key | int = 0) -> Tensor:
    """Shares `[corners]` drawn evenly from the simplex, for one step of training a subspace."""
    key = key if isinstance(key, Key) else Key(key)
    drawn = -torch.log1p(-fresh_uniforms("\0shares", (corners,), key, group=step).to(torch.float64))
    return drawn / drawn.sum()


def barrier(losses: Tensor) -> float:
    """The largest loss along a path above the line between its ends' losses; `losses` are equally spaced, `[T]`.

    Negative where the whole path lies below.
    """
    t = torch.linspace(0, 1, len(losses), dtype=torch.float64)
    line = (1 - t) * losses[0] + t * losses[-1]
    inside = (losses.to(torch.float64) - line)[1:-1]
    if not len(inside):
        raise ValueError("a barrier needs a point between the ends")
    return float(inside.max())


def _between(first: Params, last: Params, t: float) -> dict[str, Tensor]:
    return {n: v.lerp(last[n].to(v), t) if v.is_floating_point() else v for n, v in first.items()}
