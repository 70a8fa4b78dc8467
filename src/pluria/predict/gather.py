"""Blocks put together: all outputs of an ensemble in memory, or folded away as they come."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from pluria.predict.loop import Block


def gather(blocks: Iterable[Block]) -> tuple[Tensor, Tensor | None]:
    """Outputs `[K, N, ..., C]` and targets `[N, ...]` (None where the batches had none) of all members.

    Raises ValueError where there is no block.
    """
    rows: list[list[Block]] = []
    for block in blocks:
        _row(rows, block).append(block)
    if not rows:
        raise ValueError("no predictions: there was no batch")
    targets = [block.targets for block in rows[0] if block.targets is not None]
    outputs = torch.cat([torch.cat([block.outputs for block in row], dim=1) for row in rows])
    return outputs, torch.cat(targets) if targets else None


def _row(rows: list[list[Block]], block: Block) -> list[Block]:
    """The row that `block` goes on with, or a new one: members alone do not tell, one may have been taken twice."""
    for row in reversed(rows):
        if row[-1].members == block.members and row[-1].ids.stop == block.ids.start:
            return row
    rows.append([])
    return rows[-1]
