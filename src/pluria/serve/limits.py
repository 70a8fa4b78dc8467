"""What a service takes and how long it waits: sizes, times and places."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """Limits of a service. ValueError for one that is not positive (`wait` may be 0).

    body    bytes of a request; above it is refused with 413
    batch   examples that are run at a time, and the most that one request may hold (413)
    wait    seconds that the first request of a batch waits for others
    queue   requests that may wait; one more is refused with 503
    read    seconds in which a request has to arrive whole, its head and then its body (408)
    answer  seconds in which it has to be answered from then on (504)
    """

    body: int = 8 * 2**20
    batch: int = 256
    wait: float = 0.005
    queue: int = 1024
    read: float = 10.0
    answer: float = 30.0

    def __post_init__(self) -> None:
        for name in ("body", "batch", "queue", "read", "answer"):
            if not (math.isfinite(value := getattr(self, name)) and value > 0):
                raise ValueError(f"{name} is positive; got {value}")
        if not (math.isfinite(self.wait) and self.wait >= 0):
            raise ValueError(f"wait is not negative; got {self.wait}")
