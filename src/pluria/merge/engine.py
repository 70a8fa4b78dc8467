"""The loop of every leafwise merge, whatever it reads from and writes to.

    for each tensor:  passes over its pieces  ->  combine piece by piece  ->  round once  ->  write

Pieces go over threads; what was measured is added in the order of the pieces. Each piece is read into memory that is
used again, so memory is threads x (K + 3) pieces, whatever the size of the models.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import chain, groupby
from typing import Any, Protocol

import torch
from torch import Tensor

from pluria.core.errors import CheckpointError
from pluria.merge.rule import BLOCK, Pass, Piece, Rule, row_length
from pluria.numbers import members
from pluria.numbers.members import SIXTEEN
from pluria.numbers.narrow import narrowed

CHUNK = 8
"""Pieces that a thread takes at a time."""


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


Chunks = Sequence[Sequence[Span]]
Mapper = Callable[[Callable[[Sequence[Span]], Any], Chunks], Iterable[Any]]


def run(
    task: Task, leaves: Sequence[Leaf], *, skip: Collection[str] = (), threads: int = 1, chunk: int = CHUNK
) -> None:
    """Merge `leaves` in their order; `done` is called for each as it is finished.

    skip    names of leaves that are merged already: what measures the whole model measures them too
    chunk   pieces that a thread takes at a time

    Raises CheckpointError for NaN or Inf, in a member, in the base or in what was merged, ValueError for several rules
    that measure the whole model.
    """
    left = [leaf for leaf in leaves if leaf.name not in skip]
    members.prepare(len(task.members) * sum(leaf.shape.numel() for leaf in left))
    with _workers(threads) as pool:
        spread = partial(_spread, pool, 2 * threads)
        whole = [leaf for leaf in leaves if leaf.rule.scope == "model"] if left else []
        if measure_apart(whole):
            raise ValueError("what measures the whole model is one rule: make it once, and give it to all its tensors")
        chunks = dict(_numbered(sorted(whole, key=lambda leaf: leaf.name), chunk))
        found = _measured(task, whole[0].rule, [c for cs in chunks.values() for c in cs], spread) if whole else None

        def merge(leaf: Leaf, mapper: Mapper) -> None:
            own = chunks[leaf.name] if leaf.name in chunks else next(_numbered([leaf], chunk))[1]
            known = found if leaf.name in chunks else _measured(task, leaf.rule, own, mapper)
            for _ in mapper(partial(_merge, task, known), own):
                pass

        # A large tensor takes all threads; of small ones, each thread takes its own.
        for large, group in groupby(left, key=lambda leaf: leaf.shape.numel() > threads * BLOCK):
            if large:
                for leaf in group:
                    merge(leaf, spread)
                    task.done(leaf.name)
            else:
                each = list(group)
                for leaf, _ in zip(each, pool.map(lambda one: merge(one, map), each), strict=True):
                    task.done(leaf.name)


def measure_apart(leaves: Iterable[Leaf]) -> bool:
    """Whether several rules measure the whole model, of which only one could."""
    return len({id(leaf.rule) for leaf in leaves if leaf.rule.scope == "model"}) > 1


def _spread(
    pool: ThreadPoolExecutor, ahead: int, function: Callable[[Sequence[Span]], Any], chunks: Chunks
) -> Iterator[Any]:
    """Results in order; no more than `ahead` of them wait for their turn, or their memory would grow with a tensor."""
    waiting: deque[Future[Any]] = deque()
    for chunk in chunks:
        waiting.append(pool.submit(function, chunk))
        if len(waiting) > ahead:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


@contextmanager
def _workers(threads: int) -> Iterator[ThreadPoolExecutor]:
    """Threads in which torch itself uses one thread, or the order of its sums would depend on their number.

    Here too: torch's own threads wait for their next work at full speed, on the cores of those who have some.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    pool = ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,))
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(before)


def _numbered(leaves: Iterable[Leaf], chunk: int) -> Iterator[tuple[str, Chunks]]:
    """The pieces of each tensor in chunks, numbered through."""
    number = 0
    for leaf in leaves:
        ends = _ends(leaf)
        spans = [Span(leaf, start, stop, number + i) for i, (start, stop) in enumerate(ends)]
        number += len(spans)
        yield leaf.name, [spans[i : i + chunk] for i in range(0, len(spans), chunk)]


def longest(leaf: Leaf) -> int:
    """Elements of the pieces of a tensor; the last may have less."""
    count = max(leaf.shape.numel(), 1)
    if leaf.rule.pieces == "tensor":
        return count
    row = row_length(leaf.shape) if leaf.rule.pieces == "row" else 1
    return row * max(BLOCK // row, 1)


def _ends(leaf: Leaf) -> list[tuple[int, int]]:
    """Where the pieces of a tensor start and stop."""
    count, size = leaf.shape.numel(), longest(leaf)
    return [(start, min(start + size, count)) for start in range(0, count, size)]


def _measured(task: Task, rule: Rule, chunks: Chunks, mapper: Mapper) -> Any:
    """Statistics of one scope, pass after pass."""
    found = None
    for step in rule.passes if chunks else ():
        if step is rule.passes[0] or step.needed(found):
            parts = (part for several in mapper(partial(_measure, task, step, found), chunks) for part in several)
            found = step.finish(_stacked(parts, sum(map(len, chunks))) if step.stacked else _sum(parts), found)
    return found


def _stacked(parts: Iterator[Tensor], count: int) -> Tensor:
    """All of them in memory that is there before: kept one by one they would lie between the pieces, whose memory could
    then not be used again."""
    first = next(parts)
    room = first.new_empty((count, *first.shape))
    for place, part in enumerate(chain([first], parts)):
        room[place] = part
    return room


def _measure(task: Task, step: Pass, earlier: Any, spans: Sequence[Span]) -> list[Tensor]:
    pieces = _pieces(task, spans, first=step is spans[0].leaf.rule.passes[0])
    if not step.counts:
        return [step.measure(piece, earlier) for piece in pieces]
    # Integers are added at once, since their order does not matter; floats wait for their turn.
    total = None
    for piece in pieces:
        total = step.measure(piece, earlier, total)
    return [] if total is None else [total]


def _sum(parts: Iterable[Tensor]) -> Tensor:
    rest = iter(parts)
    total = next(rest).clone()
    total = total if total.is_floating_point() else total.long()
    for part in rest:
        total += part
    return total


def _merge(task: Task, found: Any, spans: Sequence[Span]) -> None:
    for span, piece in zip(spans, _pieces(task, spans, first=not spans[0].leaf.rule.passes), strict=True):
        leaf = span.leaf
        merged = leaf.rule.combine(piece, found)
        if merged.shape != (span.stop - span.start,):
            raise ValueError(f"{leaf.name!r}: a rule gives [{span.stop - span.start}]; got {list(merged.shape)}")
        rounded = narrowed(merged, leaf.dtype)
        if not _finite(rounded):
            raise CheckpointError(
                f"tensor {leaf.name!r}: what was merged does not fit into {leaf.dtype}. Give smaller weights, or a "
                "wider dtype"
            )
        task.write(leaf.name, span.start, rounded)


def _pieces(task: Task, spans: Sequence[Span], *, first: bool) -> Iterator[Piece]:
    """The pieces of spans of one tensor, one after the other in the same memory; `first`: never read before."""
    leaf, longest = spans[0].leaf, max(span.stop - span.start for span in spans)
    sources = [*task.members, *([task.base] if task.base is not None and leaf.rule.needs_base else [])]
    kinds = [source.outline[leaf.name].dtype for source in sources]
    alike = kinds[0] in SIXTEEN and len(set(kinds)) == 1
    room = torch.empty((len(sources), longest), dtype=kinds[0] if alike else leaf.arithmetic)
    narrow = {kind: torch.empty(longest, dtype=kind) for kind in kinds if kind != room.dtype}
    for span in spans:
        count = span.stop - span.start
        rows = room[:, :count] if count == longest else room.view(-1)[: len(sources) * count].view(-1, count)
        for source, kind, row in zip(sources, kinds, rows, strict=True):
            raw = narrow[kind][:count] if kind in narrow else row
            source.read(leaf.name, span.start, raw)
            if raw is not row:
                row.copy_(raw)
        piece = Piece(leaf.name, leaf.shape, span.start, span.number, rows, leaf.weights)
        if first and not _sound(piece):
            bad = next(source for source, row in zip(sources, rows, strict=True) if not _finite(row))
            raise CheckpointError(
                f"NaN or Inf in tensor {leaf.name!r} of {bad.label}. Give a checkpoint from before it diverged"
            )
        yield piece


def _sound(piece: Piece) -> bool:
    """Whether all that was read is finite."""
    if members.serves(piece.rows, *SIXTEEN):
        return members.finite(piece.rows)
    return _finite(piece.values) and (piece.base is None or _finite(piece.base))


def _finite(values: Tensor) -> bool:
    """Whether all are finite; a sum is quicker than asking each, and is finite where they are not too large."""
    if members.serves(values[None], *SIXTEEN):
        return members.finite(values[None])
    return math.isfinite(values.sum(dtype=torch.float32 if values.itemsize < 4 else None)) or bool(
        torch.isfinite(values).all()
    )
