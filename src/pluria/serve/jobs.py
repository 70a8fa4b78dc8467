"""Requests that wait for their answer: a queue in front of the one thread that owns the model."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from pluria.serve.refused import Refused
from pluria.serve.stopping import Rule

Event = dict[str, Any] | Refused
"""What a request is told: answers, of which the last is `"done": True`, or why there is none."""


@dataclass(eq=False)
class Job:
    """One request: its inputs `[n, ...]`, what it asks for, whom to tell, and until when anybody listens."""

    inputs: Tensor
    tell: Callable[[Event], None]
    until: float
    """By the clock of `time.monotonic`."""
    members: bool = False
    stream: bool = False
    rule: Rule | None = None
    dropped: bool = False
    """Set by whoever asked, when the answer is of no use any more."""

    @property
    def wanted(self) -> bool:
        """Whether anybody still waits for the answer."""
        return not self.dropped and time.monotonic() < self.until


class Queue:
    """Jobs in the order of their coming. Any thread may put and close; one takes.

    batch    the most examples that are taken at a time, unless one job alone holds more
    wait     seconds that the first job of a batch waits for others
    places   jobs that may wait
    """

    def __init__(self, *, batch: int, wait: float, places: int) -> None:
        self._batch, self._wait, self._places = batch, wait, places
        self._jobs: deque[Job] = deque()
        self._examples = 0
        self._changed = threading.Condition()
        self._closed = False

    def __len__(self) -> int:
        return len(self._jobs)

    def put(self, job: Job) -> bool:
        """Whether there was a place for the job; none after `close`."""
        with self._changed:
            if self._closed or len(self._jobs) >= self._places:
                return False
            self._jobs.append(job)
            self._examples += len(job.inputs)
            self._changed.notify()
            return True

    def close(self) -> None:
        """No further job is taken in. What waits is still given out."""
        with self._changed:
            self._closed = True
            self._changed.notify()

    def take(self) -> list[Job] | None:
        """The next batch of jobs that are still wanted, as soon as it is full or has waited; None after the last."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._jobs)
            if not self._jobs:
                return None
            due = time.monotonic() + self._wait
            while not self._closed and self._examples < self._batch:
                if not self._changed.wait(due - time.monotonic()):
                    break
            return self._first()

    def _first(self) -> list[Job]:
        found: list[Job] = []
        count = 0
        while self._jobs and (not found or count + len(self._jobs[0].inputs) <= self._batch):
            job = self._jobs.popleft()
            self._examples -= len(job.inputs)
            if job.wanted:
                found.append(job)
                count += len(job.inputs)
        return found
