"""By how many bytes a fresh process grows while it works: python growth.py loop | vmap | held.

A fresh process, since one that has run other tests has free memory in hand, and takes from there what it should be seen
to take.
"""

import sys
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import nn

from pluria.predict import predict
from pluria.sample import low_precision

STATM = Path("/proc/self/statm")
MEMBERS = 1000  # 155 MB, were they held


def growth(work: Iterator[object]) -> int:
    """Bytes beyond what the process held when the first of `work` was done."""
    held = [int(STATM.read_text().split()[1]) * 4096 for _ in work]
    return max(held) - held[0]


def main(what: str) -> int:
    torch.set_num_threads(1)
    model = nn.Sequential(nn.Conv2d(3, 64, 3), nn.BatchNorm2d(64), nn.ReLU(), nn.Conv2d(64, 64, 3), nn.Flatten(1))
    made = low_precision(model, members=MEMBERS)
    if what == "held":
        held: list[object] = []
        return growth(held.append(params) for params in made)
    images = torch.randn(1, 3, 6, 6, generator=torch.Generator().manual_seed(0))
    return growth(predict(model, made, [images], backend=what, block=10))  # type: ignore[arg-type]


if __name__ == "__main__":
    print(main(sys.argv[1]))
