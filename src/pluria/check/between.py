"""How far models lie apart, read piece by piece: distances, what a mean keeps of their spread, task vectors, signs.

    distance[i, j]    |a_i - a_j|^2 / (|a_i|^2 + |a_j|^2)            0 for equal models, 1 for orthogonal ones
    spread            std of the mean / mean std of the models       1 for equal models, 1 / sqrt(K) for unrelated ones
    length[k]         |a_k - base| / |base|                          cosine[i, j] of the task vectors a - base
    conflicts         share of the places that two or more models moved, in which they moved to different sides

Spread is over tensors with two axes or more, where there are any. Without a base there are no task vectors.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor

from pluria.core.errors import CheckpointError

PIECE = 2**20
"""Elements that are read at a time."""


class Source(Protocol):
    """A model whose tensors are read in pieces, such as `streamed` gives."""

    @property
    def label(self) -> str: ...
    @property
    def outline(self) -> Mapping[str, Tensor]: ...
    def read(self, name: str, start: int, out: Tensor) -> None: ...


@dataclass(frozen=True)
class TensorRow:
    """One floating tensor: its spread, the mean distance of two models, and the share of conflicts with a base."""

    name: str
    shape: tuple[int, ...]
    spread: float
    distance: float
    conflicts: float | None


@dataclass(frozen=True)
class Between:
    """Whole models: matrices are `[K][K]`, `unrelated` is the spread of models that have nothing in common."""

    spread: float
    unrelated: float
    distance: tuple[tuple[float, ...], ...]
    length: tuple[float, ...] | None
    cosine: tuple[tuple[float, ...], ...] | None
    conflicts: float | None
    tensors: tuple[TensorRow, ...]


@dataclass
class _Sums:
    """Sums over elements of K models: products of their values and of their differences from an origin."""

    values: Tensor
    deltas: Tensor
    totals: Tensor
    count: int = 0
    moved: int = 0
    split: int = 0
    base: Tensor = field(default_factory=lambda: torch.zeros((), dtype=torch.float64))

    def __iadd__(self, other: _Sums) -> _Sums:
        for name in ("values", "deltas", "totals", "count", "moved", "split", "base"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        return self


def between(models: Sequence[Source], base: Source | None, names: Sequence[str]) -> Between:
    """What lies between models, over the floating tensors `names` that all of them have with equal shapes.

    Two models or more; one piece of each is in memory at a time. Raises CheckpointError for NaN and Inf.
    """
    whole, rows = _none(len(models)), []
    spreads: list[tuple[float, float]] = []
    matrices = any(models[0].outline[name].ndim > 1 for name in names)
    for name in names:
        shape = tuple(models[0].outline[name].shape)
        sums = _none(len(models))
        for values, origin in _pieces(models, base, name):
            sums += _sums(values, origin)
        whole += sums
        one = _deviations(sums)
        spreads += [one] if len(shape) > 1 or not matrices else []
        rows.append(TensorRow(name, shape, _over(*one), _mean_pair(_apart(sums)), _conflicts(sums, base)))
    mean, own = (sum(pair[i] for pair in spreads) for i in (0, 1))
    task = base is not None
    return Between(
        spread=_over(mean, own),
        unrelated=len(models) ** -0.5,
        distance=_rows(_apart(whole)),
        length=tuple((whole.deltas.diagonal() / whole.base).sqrt().tolist()) if task else None,
        cosine=_rows(_cosine(whole.deltas)) if task else None,
        conflicts=_conflicts(whole, base),
        tensors=tuple(rows),
    )


def _pieces(models: Sequence[Source], base: Source | None, name: str) -> Iterator[tuple[Tensor, Tensor | None]]:
    """Runs of a tensor of all models `[K, n]`, and of the base, in float64."""
    total = models[0].outline[name].numel()
    for start in range(0, total, PIECE):
        count = min(PIECE, total - start)
        yield (
            torch.stack([_piece(model, name, start, count) for model in models]),
            None if base is None else _piece(base, name, start, count),
        )


def _piece(model: Source, name: str, start: int, count: int) -> Tensor:
    out = torch.empty(count, dtype=model.outline[name].dtype)
    model.read(name, start, out)
    wide = out.to(torch.float64)
    if not bool(torch.isfinite(wide).all()):
        raise CheckpointError(f"{model.label}: NaN or Inf in {name!r}; give a checkpoint from before it diverged")
    return wide


def _none(count: int) -> _Sums:
    square = torch.zeros(count, count, dtype=torch.float64)
    return _Sums(square, square.clone(), square[0].clone())


def _sums(values: Tensor, base: Tensor | None) -> _Sums:
    # Differences are taken before they are squared: those of fine-tunes are small beside the values.
    deltas = values - (values[0] if base is None else base)
    up, down = (deltas > 0).sum(0), (deltas < 0).sum(0)
    both = (up + down) > 1
    square = torch.zeros((), dtype=torch.float64) if base is None else base.square().sum()
    return _Sums(
        values @ values.T, deltas @ deltas.T, values.sum(1), values.shape[1], int(both.sum()),
        int((both & (up > 0) & (down > 0)).sum()), square,
    )  # fmt: skip


def _deviations(sums: _Sums) -> tuple[float, float]:
    """Standard deviation of the models' mean, and the mean of their own, times the number of elements."""
    mean, own = sums.values.mean() / sums.count, sums.values.diagonal() / sums.count
    centre = sums.totals / sums.count
    one = (mean - centre.mean().square()).clamp(min=0).sqrt()
    return float(one) * sums.count, float((own - centre.square()).clamp(min=0).sqrt().mean()) * sums.count


def _apart(sums: _Sums) -> Tensor:
    squares, own = sums.deltas.diagonal(), sums.values.diagonal()
    apart = (squares[:, None] + squares - 2 * sums.deltas).clamp(min=0)
    return apart / (own[:, None] + own).clamp(min=1e-300)


def _cosine(deltas: Tensor) -> Tensor:
    size = deltas.diagonal().sqrt()
    return deltas / torch.outer(size, size).clamp(min=1e-300)


def _mean_pair(rows: Tensor) -> float:
    off = ~torch.eye(len(rows), dtype=torch.bool)
    return float(rows[off].mean())


def _conflicts(sums: _Sums, base: Source | None) -> float | None:
    return None if base is None else sums.split / max(sums.moved, 1)


def _over(one: float, other: float) -> float:
    return one / other if other > 0 else 1.0


def _rows(matrix: Tensor) -> tuple[tuple[float, ...], ...]:
    return tuple(tuple(row) for row in matrix.tolist())
