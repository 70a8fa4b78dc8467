"""What a merge of files will cost, known from headers: bytes read and written, memory, room on the disk."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pluria.core.sizes import readable
from pluria.merge.pieces import Leaf, held_bytes, longest
from pluria.recipe.merging.target import Layout
from pluria.store.receiving import work_folder
from pluria.store.streamed import Streamed

BESIDE = 2**20
"""Bytes set aside for what lies beside the tensors."""


@dataclass(frozen=True)
class Cost:
    """Bytes, and counts.

    read     over all readings: `readings` times at most for a tensor, one where its rule measures nothing
    memory   of the pieces that are at work at a time, on `threads`; what Python and torch take comes on top
    """

    models: int
    tensors: int
    parameters: int
    read: int
    readings: int
    written: int
    memory: int
    threads: int
    free: int


def cost_of(leaves: Sequence[Leaf], sources: Sequence[Streamed], layout: Layout, threads: int) -> Cost:
    """The cost of a merge; OSError (no space left) where the disk has no room for what would be written."""
    if threads < 1:
        raise ValueError(f"threads are one or more; got {threads}")
    held = {leaf.name: held_bytes(sources, leaf, threads) for leaf in leaves}
    readings = {leaf.name: 1 if held[leaf.name] else 1 + len(leaf.rule.passes) for leaf in leaves}
    sizes = [
        (readings.get(n, 1), v.numel() * v.element_size()) for source in sources for n, v in source.outline.items()
    ]
    written = sum(layout.sizes.values())
    pieces = [longest(leaf) * leaf.arithmetic.itemsize for leaf in leaves]
    cost = Cost(
        models=len(sources),
        tensors=sum(map(len, layout.files.values())),
        parameters=sum(leaf.shape.numel() for leaf in leaves),
        read=sum(times * size for times, size in sizes),
        readings=max(readings.values(), default=1),
        written=written,
        memory=threads * (len(sources) + 3) * max(pieces, default=0) + max(held.values(), default=0),
        threads=threads,
        free=shutil.disk_usage(layout.out.absolute().parent).free + _kept(work_folder(layout.out)),
    )
    if written + BESIDE > cost.free:
        reason = f"the merged model takes {readable(written)} and {readable(cost.free)} are free; nothing was written"
        raise OSError(errno.ENOSPC, reason, str(layout.out))
    return cost


def _kept(folder: Path) -> int:
    """Bytes that an interrupted merge has put aside already."""
    return sum(file.stat().st_blocks * 512 for file in folder.rglob("*") if file.is_file())
