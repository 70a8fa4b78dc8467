"""What it is worth that glibc keeps freed memory (`core/memory.py`): forward passes, CPU seconds.

    python -m benchmarks.pages [--turns 5]

Every run is a process of its own, since what glibc has learnt stays. Ratios are taken turn by turn.
"""

from __future__ import annotations

import resource
import subprocess
import sys
from typing import Annotated

import torch
import typer

from benchmarks.networks import case
from benchmarks.sides import keep, ratio
from pluria.core.memory import keep_freed

CASES = (("resnet20", 256), ("vit", 64))
PASSES = 8


def measure(name: str, rows: int, kept: bool) -> tuple[float, float]:
    """CPU seconds of some passes over one batch, and thousands of pages that were cleared, after one pass before."""
    found = case(name, rows)
    if kept:
        keep_freed()
    with torch.inference_mode():
        found.model(found.batches[0])
        before = resource.getrusage(resource.RUSAGE_SELF)
        for _ in range(PASSES):
            found.model(found.batches[0])
    after = resource.getrusage(resource.RUSAGE_SELF)
    seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return seconds, (after.ru_minflt - before.ru_minflt) / 1e3


def apart(*given: str) -> list[float]:
    """The same in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.pages", "--one", " ".join(given)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return [float(word) for word in done.stdout.split()]


def main(
    rounds: Annotated[int, typer.Option("--turns", help="Turns of each.")] = 5,
    one: Annotated[str, typer.Option(hidden=True)] = "",
) -> None:
    """Measure what keeping memory is worth."""
    torch.set_num_threads(1)
    if one:
        name, rows, how = one.split()
        print(*measure(name, int(rows), how == "kept"))
        return
    found, pages = [], {}
    for name, rows in CASES:
        both = [[apart(name, str(rows), how) for how in ("kept", "given_back")] for _ in range(rounds)]
        label = f"{case(name, rows).what}: a forward, memory kept / given back"
        found.append(ratio(label, [kept[0] for kept, _ in both], [given[0] for _, given in both]))
        pages[label] = [[kept[1], given[1]] for kept, given in both]
    keep("pages", found, clock="cpu", torch_threads=1, passes=PASSES, thousand_pages=pages)


if __name__ == "__main__":
    typer.run(main)
