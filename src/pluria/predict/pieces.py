"""Batches cut and joined: where every example stands for itself, a network may see fewer or more of them at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor

from pluria.core.calling import tensors_of

T = TypeVar("T")
PLAIN = bool | int | float | str | None


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


def together(batches: Iterable[T], size: int | None, inputs: Callable[[T], Any]) -> Iterator[list[T]]:
    """Neighbouring batches that can be one of at most `size` examples; each by itself where that is None."""
    held: list[T] = []
    count, like = 0, None
    for batch in batches:
        own, own_kind = rows(x := inputs(batch)), kind(x)
        if held and (size is None or own is None or count + own > size or own_kind != like):
            yield held
            held, count = [], 0
        held, count, like = [*held, batch], count + (own or size or 0), own_kind
    if held:
        yield held


def joined(several: Sequence[Any]) -> Any:
    """Batches of one kind end to end."""
    if len(several) == 1:
        return several[0]
    columns = iter([torch.cat(column) for column in zip(*map(tensors_of, several), strict=True)])
    return changed(several[0], lambda _: next(columns))


def apart(outputs: Tensor, several: Sequence[Any]) -> Sequence[Tensor]:
    """Outputs `[k, n, ...]` of joined batches, batch by batch; ValueError where examples and outputs do not count."""
    if len(several) == 1:
        return [outputs]
    counts = [rows(x) or 0 for x in several]
    if sum(counts) != outputs.shape[1]:
        raise ValueError(
            f"{sum(counts)} examples of joined batches give {outputs.shape[1]} rows of outputs, which cannot be told "
            "apart; keep batches as they are: Choice(name) without a number of examples"
        )
    return torch.split(outputs, counts, 1)


def _cut(value: Any, start: int, stop: int) -> Any:
    return changed(value, lambda tensor: tensor[start:stop])


def kind(value: Any) -> Any:
    """What two batches have in common that can be joined; other things than tensors and plain values never are."""

    def other(item: Any) -> Any:
        return item if isinstance(item, PLAIN) else object()

    return changed(value, lambda tensor: (tensor.shape[1:], tensor.dtype), other)


def changed(value: Any, change: Callable[[Tensor], Any], other: Callable[[Any], Any] = lambda item: item) -> Any:
    """A structure with every tensor changed."""
    if isinstance(value, Tensor):
        return change(value)
    if isinstance(value, Mapping):
        return {key: changed(item, change, other) for key, item in value.items()}
    if isinstance(value, tuple | list):
        items = [changed(item, change, other) for item in value]
        return type(value)(*items) if hasattr(value, "_fields") else type(value)(items)
    return other(value)
