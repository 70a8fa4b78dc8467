"""A tensor's pieces: where they lie, and how each is read from all models into one memory."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from pluria.core.errors import CheckpointError
from pluria.merge.rule import BLOCK, Piece, Rule, row_length
from pluria.numbers import members
from pluria.numbers.members import SIXTEEN

HELD = 2**26
"""Bytes: a tensor of 16 bits that goes over all threads and takes no more, all models together, is read once for all
passes that measure it alone."""


class Source(Protocol):
    """One model to read from."""

    @property
    def label(self) -> str:
        """What it is called in messages."""
        ...

    @property
    def outline(self) -> Mapping[str, Tensor]:
        """Names, shapes and dtypes, as tensors without data."""
        ...

    def read(self, name: str, start: int, out: Tensor) -> None:
        """Fill `out` `[n]`, of the tensor's dtype, with its elements from the flat index `start` on."""
        ...


@dataclass(frozen=True)
class Leaf:
    """One tensor to be merged: by which rule and weights `[K]`, into which dtype, and in which arithmetic."""

    name: str
    shape: torch.Size
    dtype: torch.dtype
    arithmetic: torch.dtype
    rule: Rule
    weights: Tensor


@dataclass(frozen=True)
class Task:
    """Everything that a merge reads and writes; `write(name, start, values)` takes merged elements `[n]`."""

    members: Sequence[Source]
    base: Source | None
    write: Callable[[str, int, Tensor], None]
    done: Callable[[str], None] = lambda name: None


@dataclass(frozen=True)
class Span:
    """Where a piece lies: elements start..stop-1 of a tensor, and its number in the scope."""

    leaf: Leaf
    start: int
    stop: int
    number: int


def longest(leaf: Leaf) -> int:
    """Elements of the pieces of a tensor; the last may have less."""
    count = max(leaf.shape.numel(), 1)
    if leaf.rule.pieces == "tensor":
        return count
    row = row_length(leaf.shape) if leaf.rule.pieces == "row" else 1
    return row * max(BLOCK // row, 1)


def large(leaf: Leaf, threads: int) -> bool:
    """Whether a tensor has something to do for all threads."""
    return leaf.shape.numel() > threads * BLOCK


def ends(leaf: Leaf) -> list[tuple[int, int]]:
    """Where the pieces of a tensor start and stop."""
    count, size = leaf.shape.numel(), longest(leaf)
    return [(start, min(start + size, count)) for start in range(0, count, size)]


def sources_of(task: Task, leaf: Leaf) -> list[Source]:
    """What is read of a tensor."""
    return [*task.members, *([task.base] if task.base is not None and leaf.rule.needs_base else [])]


def stored(sources: Sequence[Source], leaf: Leaf) -> torch.dtype | None:
    """The dtype of all sources, if they have 16 bits and are merged from them; None where they are widened first."""
    kinds = {source.outline[leaf.name].dtype for source in sources}
    kind = kinds.pop()
    return kind if kind in SIXTEEN and not kinds and leaf.arithmetic == torch.float32 else None


def held_bytes(sources: Sequence[Source], leaf: Leaf, threads: int) -> int:
    """Bytes of a tensor that stays in memory between its passes; 0 for one that does not."""
    size = 2 * len(sources) * leaf.shape.numel()
    measured = bool(leaf.rule.passes) and leaf.rule.scope == "tensor" and large(leaf, threads)
    return size if measured and size <= HELD and stored(sources, leaf) is not None else 0


def pieces_of(task: Task, spans: Sequence[Span], held: Tensor | None, *, first: bool) -> Iterator[Piece]:
    """The pieces of spans of one tensor, one after the other in the same memory, or where they are held.

    held    bytes for the whole tensor, piece by piece
    first   nobody has read them before: numbers that are not finite raise CheckpointError
    """
    leaf, most = spans[0].leaf, max(span.stop - span.start for span in spans)
    sources = sources_of(task, leaf)
    kind = stored(sources, leaf) or leaf.arithmetic
    room = torch.empty(len(sources) * most, dtype=kind) if held is None else held.view(kind)
    for span in spans:
        count, at = span.stop - span.start, 0 if held is None else len(sources) * span.start
        rows = room[at : at + len(sources) * count].view(-1, count)
        if first or held is None:
            for k, source in enumerate(sources):
                _fill(source, span, rows[k])
        piece = Piece(leaf.name, leaf.shape, span.start, span.number, rows, leaf.weights)
        if first and not _sound(piece):
            bad = next(source for source, row in zip(sources, rows, strict=True) if not finite(row))
            raise CheckpointError(
                f"NaN or Inf in tensor {leaf.name!r} of {bad.label}. Give a checkpoint from before it diverged"
            )
        yield piece


def _fill(source: Source, span: Span, row: Tensor) -> None:
    """Read a piece of one model into its row."""
    kind = source.outline[span.leaf.name].dtype
    raw = row if kind == row.dtype else torch.empty(len(row), dtype=kind)
    source.read(span.leaf.name, span.start, raw)
    if raw is not row:
        row.copy_(raw)


def _sound(piece: Piece) -> bool:
    """Whether all that was read is finite."""
    if members.serves(piece.rows, *SIXTEEN):
        return members.finite(piece.rows)
    return finite(piece.values) and (piece.base is None or finite(piece.base))


def finite(values: Tensor) -> bool:
    """Whether all are finite; a sum is quicker than asking each, and is finite where they are not too large."""
    if members.serves(values[None], *SIXTEEN):
        return members.finite(values[None])
    return math.isfinite(values.sum(dtype=torch.float32 if values.itemsize < 4 else None)) or bool(
        torch.isfinite(values).all()
    )
