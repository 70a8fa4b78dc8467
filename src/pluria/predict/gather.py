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
    rows: dict[tuple[int, ...], list[Tensor]] = {}
    targets: list[Tensor] = []
    for block in blocks:
        rows.setdefault(block.members, []).append(block.outputs)
        if len(rows) == 1 and block.targets is not None:
            targets.append(block.targets)
    if not rows:
        raise ValueError("no predictions: there was no batch")
    return torch.cat([torch.cat(parts, dim=1) for parts in rows.values()]), torch.cat(targets) if targets else None
