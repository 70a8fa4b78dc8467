"""Sums over members and examples without `[K, N, C]`: an item of work is a block of members on a shard of the examples.

    shard s:  fold(block 0) + fold(block 1) + ...          all:  finish(shard 0) + finish(shard 1) + ...

Both sums go in order, so any mapper gives the same bits. No process holds outputs of more than one batch and `block`
members, nor sums of more than a few shards.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any, TypeVar

from torch import Tensor, nn

from pluria.core.ensemble import Ensemble
from pluria.predict.batches import Batches, refuse_unstable
from pluria.predict.loop import runner
from pluria.predict.map import Mapper, local

Sums = TypeVar("Sums")
Total = TypeVar("Total")


def summed(
    model: nn.Module,
    ensemble: Ensemble,
    shards: Sequence[Batches],
    *,
    fold: Callable[[Tensor, Tensor], Sums],
    finish: Callable[[Sums, Tensor | None], Total],
    at_once: int = 64,
    mapper: Mapper = local,
    **options: Any,
) -> Total:
    """The total over all members and all shards; `+` has to be defined for what `fold` and `finish` give.

    shards    each a re-iterable, unshuffled collection of batches; together they are the examples
    fold      outputs `[k, n, ..., C]` and mixing weights `[k]` of some members to sums over them; sent to workers
    finish    sums over all members and targets `[n, ...]` of one batch to what adds up over examples, such as a Tally
    at_once   members of one item of work; sums are rounded by it, so keep it where bits are compared
    options   of `runner`: views, block, backend, dtype, ...

    Raises ValueError without shards or batches, and where `at_once` is below one; and what `runner` and the mapper do.
    """
    if at_once < 1 or not shards:
        raise ValueError(f"there is a shard, and an item has a member; got {len(shards)} shards, at_once={at_once}")
    for shard in shards:
        refuse_unstable(shard)
    starts = range(0, len(ensemble), at_once)
    items = [(shard, start, min(start + at_once, len(ensemble))) for shard in range(len(shards)) for start in starts]
    total: Total | None = None
    held: list[tuple[Sums, Tensor | None]] = []
    with closing(mapper(_Folded(model, ensemble, tuple(shards), fold, options), items)) as results:
        for (_, start, stop), found in zip(items, results, strict=True):
            held = found if start == 0 else [_both(one, more) for one, more in zip(held, found, strict=True)]
            for sums, targets in held if stop == len(ensemble) else ():
                part = finish(sums, targets)
                total = part if total is None else total + part  # type: ignore[operator]
    if total is None:
        raise ValueError("no predictions: there was no batch")
    return total


@dataclass
class _Folded:
    """The task: sums over a block of members, for every batch of a shard, with its targets."""

    model: nn.Module
    ensemble: Ensemble
    shards: tuple[Batches, ...]
    fold: Callable[[Tensor, Tensor], Any]
    options: dict[str, Any]
    _run: Any = field(default=None, repr=False)

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_run": None}

    def __call__(self, item: tuple[int, int, int]) -> list[tuple[Any, Tensor | None]]:
        shard, start, stop = item
        self._run = self._run or runner(self.model, self.ensemble, **self.options)
        size, held = self.options.get("block", 1), list[tuple[Any, Tensor | None]]()
        for first in range(start, stop, size):
            own = slice(first, min(first + size, stop))
            blocks = self._run(self.shards[shard], self.ensemble.members[own])
            found = [(self.fold(block.outputs, self.ensemble.weights[own]), block.targets) for block in blocks]
            held = found if first == start else [_both(one, more) for one, more in zip(held, found, strict=True)]
        return held


def _both(one: tuple[Any, Tensor | None], more: tuple[Any, Tensor | None]) -> tuple[Any, Tensor | None]:
    """Sums over the members of both; the examples are the same."""
    return one[0] + more[0], one[1]
