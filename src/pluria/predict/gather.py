"""Blocks put together: all outputs of an ensemble in memory, or folded away as they come."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from pluria.predict.loop import Block


def gather(blocks: Iterable[Block]) -> tuple[Tensor, Tensor | None]:
    """Outputs `[K, N, ..., C]` and targets `[N, ...]` (None where the batches had none) of all members.

    Raises ValueError where there is no block, where batches have outputs of different shapes, and where the targets
    of the same rows differ between blocks of members: then the members did not see the same examples.
    """
    rows: list[list[Block]] = []
    for block in blocks:
        _row(rows, block).append(block)
    if not rows:
        raise ValueError("no predictions: there was no batch")
    outputs = [_end_to_end([block.outputs for block in row], axis=1) for row in rows]
    several = [[block.targets for block in row if block.targets is not None] for row in rows]
    targets = [_end_to_end(found, axis=0) if found else None for found in several]
    if not all(_equal(found, targets[0]) for found in targets[1:]):
        raise ValueError(
            "the targets of the same rows differ between blocks of members, so members did not see the same examples. "
            "Give batches that are the same each time: a list, or a DataLoader that does not shuffle"
        )
    return torch.cat(outputs), targets[0]


def _end_to_end(parts: list[Tensor], axis: int) -> Tensor:
    shapes = sorted({tuple(part.shape[axis + 1 :]) for part in parts})
    if len(shapes) > 1:
        raise ValueError(
            f"batches differ in the shape of one example: {', '.join(map(str, shapes))}. Pad all examples to one "
            "length, and give what is padded the target -100"
        )
    return torch.cat(parts, dim=axis)


def _equal(one: Tensor | None, other: Tensor | None) -> bool:
    if one is None or other is None:
        return one is other
    return one.shape == other.shape and bool(((one == other) | ((one != one) & (other != other))).all())


def _row(rows: list[list[Block]], block: Block) -> list[Block]:
    """The row that `block` goes on with, or a new one: members alone do not tell, one may have been taken twice."""
    for row in reversed(rows):
        if row[-1].members == block.members and row[-1].ids.stop == block.ids.start:
            return row
    rows.append([])
    return rows[-1]
