"""The loop of every leafwise merge, whatever it reads from and writes to.

    for each tensor:  passes over its pieces  ->  combine piece by piece  ->  round once  ->  write

Pieces go over threads; what was measured is added in the order of the pieces. Each piece is read into memory that is
used again, so memory is threads x (K + 3) pieces, whatever the size of the models; and `HELD`, in which a tensor of
moderate size stays between its passes.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache, partial
from itertools import chain, groupby
from typing import Any

import torch
from torch import Tensor

from pluria.core.errors import CheckpointError
from pluria.core.memory import keep_freed
from pluria.merge.pieces import HELD, Leaf, Span, Task, ends, finite, held_bytes, large, pieces_of, sources_of
from pluria.merge.rule import Pass, Rule
from pluria.numbers import members
from pluria.numbers.narrow import narrowed

CHUNK = 8
"""Pieces that a thread takes at a time."""

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

        @cache
        def room() -> Tensor:
            return torch.empty(HELD, dtype=torch.uint8, device="cpu")

        def merge(leaf: Leaf, mapper: Mapper, held: Tensor | None = None) -> None:
            own = chunks[leaf.name] if leaf.name in chunks else next(_numbered([leaf], chunk))[1]
            known = found if leaf.name in chunks else _measured(task, leaf.rule, own, mapper, held)
            for _ in mapper(partial(_merge, task, known, held), own):
                pass

        # A large tensor takes all threads; of small ones, each thread takes its own.
        for shared, group in groupby(left, key=lambda leaf: large(leaf, threads)):
            if shared:
                for leaf in group:
                    size = held_bytes(sources_of(task, leaf), leaf, threads)
                    merge(leaf, spread, room()[:size] if size else None)
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
    keep_freed()
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
        spans = [Span(leaf, start, stop, number + i) for i, (start, stop) in enumerate(ends(leaf))]
        number += len(spans)
        yield leaf.name, [spans[i : i + chunk] for i in range(0, len(spans), chunk)]


def _measured(task: Task, rule: Rule, chunks: Chunks, mapper: Mapper, held: Tensor | None = None) -> Any:
    """Statistics of one scope, pass after pass."""
    found = None
    for step in rule.passes if chunks else ():
        if step is rule.passes[0] or step.needed(found):
            parts = (part for several in mapper(partial(_measure, task, step, found, held), chunks) for part in several)
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


def _measure(task: Task, step: Pass, earlier: Any, held: Tensor | None, spans: Sequence[Span]) -> list[Tensor]:
    pieces = pieces_of(task, spans, held, first=step is spans[0].leaf.rule.passes[0])
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


def _merge(task: Task, found: Any, held: Tensor | None, spans: Sequence[Span]) -> None:
    for span, piece in zip(spans, pieces_of(task, spans, held, first=not spans[0].leaf.rule.passes), strict=True):
        leaf = span.leaf
        merged = leaf.rule.combine(piece, found)
        if merged.shape != (span.stop - span.start,):
            raise ValueError(f"{leaf.name!r}: a rule gives [{span.stop - span.start}]; got {list(merged.shape)}")
        rounded = narrowed(merged, leaf.dtype)
        if not finite(rounded):
            raise CheckpointError(
                f"tensor {leaf.name!r}: what was merged does not fit into {leaf.dtype}. Give smaller weights, or a "
                "wider dtype"
            )
        task.write(leaf.name, span.start, rounded)
