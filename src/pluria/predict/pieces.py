"""A batch in pieces: where every example stands for itself, a network may see fewer of them at a time."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from pluria.core.calling import tensors_of


def rows(inputs: Any) -> int | None:
    """How many examples a batch holds: the first axis that all its tensors share; None where there is none."""
    found = {value.shape[0] if value.ndim else None for value in tensors_of(inputs)}
    return found.pop() if len(found) == 1 else None


def in_pieces(forward: Callable[[Any], Tensor], inputs: Any, size: int | None) -> Tensor:
    """Outputs `[n, ...]` of a batch that is run `size` examples at a time, whole where it cannot be cut."""
    count = rows(inputs)
    if size is None or count is None or count <= size:
        return forward(inputs)
    return torch.cat([forward(_cut(inputs, start, start + size)) for start in range(0, count, size)])


def _cut(value: Any, start: int, stop: int) -> Any:
    if isinstance(value, Tensor):
        return value[start:stop]
    if isinstance(value, Mapping):
        return {key: _cut(item, start, stop) for key, item in value.items()}
    if isinstance(value, tuple | list):
        items = [_cut(item, start, stop) for item in value]
        return type(value)(*items) if hasattr(value, "_fields") else type(value)(items)
    return value
