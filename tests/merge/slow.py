"""Task-vector methods once more, by plain loops over elements in float64: what the rules are compared with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from pluria.core.ensemble import Ensemble, stack
from pluria.core.params import Params

Row = list[float]
Rows = list[Row]


def rank_order(row: Row) -> list[int]:
    """Indices by falling magnitude; of equal ones the lowest index first."""
    return sorted(range(len(row)), key=lambda i: (-abs(row[i]), i))


def kept(density: float, count: int) -> int:
    return max(1, int(density * count + 1e-9))


def only(row: Row, indices: Sequence[int]) -> Row:
    return [value if i in set(indices) else 0.0 for i, value in enumerate(row)]


def elect(column: Row, weights: Row, voices: Row, tie: float, by_count: bool, undivided: bool = False) -> float:
    """One place of several task vectors, merged by sign."""
    total = sum(v * c for v, c in zip(voices, column, strict=True))
    sign = tie if total == 0 else (1.0 if total > 0 else -1.0)
    agree = [k for k, c in enumerate(column) if c * sign > 0]
    if not agree:
        return 0.0
    if undivided:
        return sum(weights[k] * column[k] for k in agree)
    if by_count:
        return sum(len(weights) * weights[k] * column[k] for k in agree) / len(agree)
    return sum(weights[k] * column[k] for k in agree) / sum(weights[k] for k in agree)


def ties(tensors: Sequence[Rows], weights: Row, density: float, spec: str) -> list[Row]:
    """`tensors` are task vectors of K members, tensor by tensor; the merged ones come back."""
    sizes = [len(rows[0]) for rows in tensors]
    members = len(weights)
    if spec == "paper":
        flat = [[value for rows in tensors for value in rows[k]] for k in range(members)]
        cut = [only(row, rank_order(row)[: kept(density, len(row))]) for row in flat]
        trimmed, start = [], 0
        for size in sizes:
            trimmed.append([row[start : start + size] for row in cut])
            start += size
    else:
        trimmed = [[only(row, rank_order(row)[: kept(density, len(row))]) for row in rows] for rows in tensors]
    columns = [[[row[i] for row in rows] for i in range(len(rows[0]))] for rows in trimmed]
    tie = 1.0
    if spec == "paper":
        votes = [sum(w * c for w, c in zip(weights, col, strict=True)) for tensor in columns for col in tensor]
        tie = -1.0 if sum((vote > 0) - (vote < 0) for vote in votes) < 0 else 1.0
    merged = []
    for tensor in columns:
        row = []
        for column in tensor:
            voices = weights if spec in ("paper", "mergekit") else [1.0] * members
            if spec == "sd-mecha":
                voices = [0.0 if c == 0 else 1 / abs(c) for c in column]
            row.append(elect(column, weights, voices, tie, spec == "peft"))
        merged.append(row)
    return merged


def breadcrumbs(row: Row, density: float, gamma: float) -> Row:
    order, stay = rank_order(row), kept(density, len(row))
    top = min(int(gamma * len(row) + 1e-9), len(row) - stay)
    return only(row, order[top : top + stay])


def chances(row: Row, density: float, epsilon: float, spec: str) -> Row:
    """Chances of DELLA for one row."""
    width = epsilon if spec == "paper" else 2 * epsilon
    rising = sorted(range(len(row)), key=lambda i: (abs(row[i]), i))
    if len(row) == 1:
        return [density]
    return [density - width / 2 + width * rising.index(i) / (len(row) - 1) for i in range(len(row))]


def sce(rows: Rows, weights: Row, select: float, spec: str = "paper") -> Row:
    columns = [[row[i] for row in rows] for i in range(len(rows[0]))]
    means = [sum(w * c for w, c in zip(weights, col, strict=True)) for col in columns]
    spread = [
        sum(w * (c - mean) ** 2 for w, c in zip(weights, col, strict=True))
        for col, mean in zip(columns, means, strict=True)
    ]
    differ = sum(len(set(column)) > 1 for column in columns)
    count = kept(select, len(spread)) if spec == "paper" else int(select * differ)
    places = set(rank_order(spread)[: len(spread) if select == 1 else count])
    energies = [w * sum(row[i] ** 2 for i in places) for w, row in zip(weights, rows, strict=True)]
    return [elect(col, energies, weights, 1.0, False) if i in places else 0.0 for i, col in enumerate(columns)]


def of(a: Any, b: Any, dtype: torch.dtype = torch.float64) -> tuple[Ensemble, Params]:
    """Members whose task vectors are the rows, and the base."""
    base = {"a": torch.zeros(len(a[0]), dtype=dtype), "b": torch.zeros(len(b[0]), dtype=dtype)}
    rows = zip(a, b, strict=True)
    return stack([{"a": torch.tensor(x, dtype=dtype), "b": torch.tensor(y, dtype=dtype)} for x, y in rows]), base


def coarse(members: int, size: int, seed: int) -> list[list[float]]:
    """Task vectors with many equal magnitudes and zeros."""
    draw = torch.Generator().manual_seed(seed)
    return (torch.randint(-6, 7, (members, size), generator=draw).double() / 2).tolist()
