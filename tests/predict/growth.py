"""By how many bytes a fresh process grows: python growth.py WORK..., works of `main`; summed:10000 says how many.

A fresh process, since one that has run other tests has free memory in hand, and takes from there what it should be seen
to take.
"""

import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import torch
from torch import nn

from pluria.core.ensemble import Ensemble
from pluria.predict import gather, predict, summed
from pluria.sample import low_precision
from pluria.score import DISAGREEMENT, NLL, member_sums, tally_members

Shard = list[tuple[torch.Tensor, torch.Tensor]]
STATM = Path("/proc/self/statm")
MEMBERS = 1000  # 155 MB, were they held
MANY, ROWS = 4000, 256  # outputs of 41 MB, were they held


def growth(work: Iterator[object]) -> int:
    """Bytes beyond what the process held when the first of `work` was done."""
    held = [int(STATM.read_text().split()[1]) * 4096 for _ in work]
    return max(held) - held[0]


def many(members: int, work: Callable[[nn.Module, Ensemble, list[Shard]], object]) -> int:
    """By how much it grows over many members of a small network, two shards of the examples, once all is warm."""
    generator = torch.Generator().manual_seed(0)
    model = nn.Linear(8, 10)
    made = low_precision(model, members=members)
    halves = [torch.randn(ROWS // 2, 8, generator=generator) for _ in range(2)]
    shards: list[Shard] = [[(half, torch.arange(len(half)) % 10)] for half in halves]
    return growth(work(model, made.first(count), shards) for count in (100, members))


def in_sums(model: nn.Module, made: Ensemble, shards: list[Shard]) -> object:
    """Figures of all members from sums alone."""
    finish = partial(tally_members, (NLL, DISAGREEMENT))
    return summed(model, made, shards, fold=member_sums, finish=finish, at_once=100, backend="vmap", block=100)


def whole(model: nn.Module, made: Ensemble, shards: list[Shard]) -> object:
    """Outputs of all members."""
    return gather(predict(model, made, [batch for shard in shards for batch in shard], backend="vmap", block=100))


def main(what: str) -> int:
    torch.set_num_threads(1)
    work, _, members = what.partition(":")
    if work in ("summed", "gathered"):
        return many(int(members or MANY), in_sums if work == "summed" else whole)
    model = nn.Sequential(nn.Conv2d(3, 64, 3), nn.BatchNorm2d(64), nn.ReLU(), nn.Conv2d(64, 64, 3), nn.Flatten(1))
    made = low_precision(model, members=MEMBERS)
    if what == "held":
        held: list[object] = []
        return growth(held.append(params) for params in made)
    images = torch.randn(1, 3, 6, 6, generator=torch.Generator().manual_seed(0))
    return growth(predict(model, made, [images], backend=what, block=10))  # type: ignore[arg-type]


if __name__ == "__main__":
    print(*map(main, sys.argv[1:]))
