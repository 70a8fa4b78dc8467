"""Figures of a service in the text format of Prometheus: counters, gauges and histograms.

Source: the text exposition format, version 0.0.4. One lock for all: requests are counted in the event loop, batches in
the worker's thread.
"""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Sequence

TYPE = "text/plain; version=0.0.4; charset=utf-8"
SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)


class Histogram:
    """Counts of values below each of some bounds, their sum and number."""

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds, self.counts, self.sum = tuple(bounds), [0] * (len(bounds) + 1), 0.0

    def add(self, value: float, times: int = 1) -> None:
        """Count a value; one that equals a bound lies below it."""
        self.counts[bisect_left(self.bounds, value)] += times
        self.sum += value * times

    def lines(self, name: str) -> list[str]:
        """The lines of the text format: counts add up from bound to bound."""
        found, total = [], 0
        for bound, count in zip((*map(_number, self.bounds), "+Inf"), self.counts, strict=True):
            total += count
            found.append(f'{name}_bucket{{le="{bound}"}} {total}')
        return [*found, f"{name}_sum {_number(self.sum)}", f"{name}_count {total}"]


class Metrics:
    """Requests by path and code, their seconds, batch sizes, members per example, and how many requests wait."""

    def __init__(self, queue: Callable[[], int]) -> None:
        self._lock, self._queue = threading.Lock(), queue
        self._requests: Counter[tuple[str, int]] = Counter()
        self._seconds, self._batches, self._members = Histogram(SECONDS), Histogram(SIZES), Histogram(SIZES)

    def request(self, path: str, code: int, seconds: float) -> None:
        """One request that was answered, for good or bad; the seconds of `/predict` are kept."""
        with self._lock:
            self._requests[path, code] += 1
            if path == "/predict":
                self._seconds.add(seconds)

    def batch(self, members: Sequence[int]) -> None:
        """One batch that was run: how many members each of its examples has seen."""
        with self._lock:
            self._batches.add(len(members))
            for count, times in Counter(members).items():
                self._members.add(count, times)

    def text(self) -> str:
        """All figures."""
        with self._lock:
            requests = [
                f'pluria_requests_total{{path="{path}",code="{code}"}} {count}'
                for (path, code), count in sorted(self._requests.items())
            ]
            parts = [
                ("requests_total", "counter", "Requests by path and code of the answer.", requests),
                ("request_seconds", "histogram", "Seconds from a request's head to its answer.", self._seconds),
                ("batch_examples", "histogram", "Examples of a batch.", self._batches),
                ("members_per_example", "histogram", "Members that were run for an example.", self._members),
                ("queue_length", "gauge", "Requests that wait.", [f"pluria_queue_length {self._queue()}"]),
            ]
            return "".join(_part(f"pluria_{name}", *rest) for name, *rest in parts)  # type: ignore[arg-type]


def _part(name: str, kind: str, help: str, held: Histogram | list[str]) -> str:
    lines = held.lines(name) if isinstance(held, Histogram) else held
    return "\n".join([f"# HELP {name} {help}", f"# TYPE {name} {kind}", *lines, ""])


def _number(value: float) -> str:
    return f"{value:.6f}".rstrip("0").rstrip(".") if value != int(value) else str(int(value))
