"""What all benchmarks share: ways that take turns, ratios with their spread, and where results are kept.

A result is JSON: machine and date, the command, and `ratios`, rows of {what, ratio, low, high, bar}. `table.py` prints
all of them; whatever else a file holds is its own.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.machine import machine

RESULTS = Path(__file__).parent / "results"


@dataclass(frozen=True)
class Ratio:
    """The median of ratios of pairs that ran side by side, the least and the largest; `bar` is the most allowed."""

    what: str
    ratio: float
    low: float
    high: float
    bar: float | None = None


CLOCKS: dict[str, Callable[[], float]] = {"wall": time.perf_counter, "cpu": time.process_time}
"""On a machine that others use, seconds of the processor on one thread say more than those of the clock on the wall."""


def turns(ways: Mapping[str, Callable[[], object]], repeats: int, *, clock: str = "wall") -> dict[str, list[float]]:
    """Seconds of each way in each round; all ways take turns within a round, after one round that does not count.

    A way that gives a number has measured its seconds itself.
    """
    now = CLOCKS[clock]
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(repeats + 1):
        for name, way in ways.items():
            start = now()
            own = way()
            if turn:
                seconds[name].append(own if isinstance(own, float) else now() - start)
    return seconds


def ratio(what: str, one: list[float], other: list[float], *, bar: float | None = None, scale: float = 1.0) -> Ratio:
    """`one` over `other`, round by round, times `scale`."""
    pairs = [scale * a / b for a, b in zip(one, other, strict=True)]
    return Ratio(what, statistics.median(pairs), min(pairs), max(pairs), bar)


def keep(name: str, ratios: list[Ratio], **more: Any) -> Path:
    """Write one benchmark's result, say so, and print its ratios."""
    file = RESULTS / f"{name}.json"
    given = ["PATH" if os.path.isabs(one) else one for one in sys.argv[1:]]  # a place on this machine says nothing
    command = " ".join(["python", "-m", f"benchmarks.{Path(sys.argv[0]).stem}", *given])
    content = {"machine": machine(), "command": command, "ratios": [asdict(one) for one in ratios], **more}
    file.parent.mkdir(exist_ok=True)
    file.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    for one in ratios:
        bar = "" if one.bar is None else f", bar {one.bar}"
        print(f"{one.what}: {one.ratio:.3g} ({one.low:.3g} to {one.high:.3g}{bar})", flush=True)
    return file
