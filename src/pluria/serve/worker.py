"""The one thread that owns the members: it takes batches from the queue until the queue is closed and empty."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence

from pluria.serve.batch import run_batch
from pluria.serve.jobs import Job, Queue
from pluria.serve.panel import Panel
from pluria.serve.refused import Refused

log = logging.getLogger("pluria.serve")


class Worker:
    """Answers jobs of a queue in a thread of its own; `observe` is told how many members each example has seen."""

    def __init__(self, panel: Panel, queue: Queue, observe: Callable[[Sequence[int]], None]) -> None:
        self._panel, self._queue, self._observe = panel, queue, observe
        # A daemon: a second signal ends the process although a batch is under way.
        self._thread = threading.Thread(target=self._work, name="pluria-worker", daemon=True)

    def start(self) -> None:
        """Begin to take jobs."""
        self._thread.start()

    @property
    def alive(self) -> bool:
        """Whether the thread runs."""
        return self._thread.is_alive()

    def stop(self) -> None:
        """Take in no further job, answer those that wait, and end."""
        self._queue.close()
        self._thread.join()

    def _work(self) -> None:
        while (jobs := self._queue.take()) is not None:
            if jobs:
                self._answer(jobs)

    def _answer(self, jobs: Sequence[Job]) -> None:
        """Where a batch fails, its jobs are run one by one: no request may spoil the answer of another."""
        try:
            self._observe(run_batch(self._panel, jobs))
        except Exception as error:  # the network's own code, which may raise anything
            if len(jobs) == 1:
                jobs[0].tell(_refusal(error))
            else:
                for job in jobs:
                    self._answer([job])


def _refusal(error: Exception) -> Refused:
    if isinstance(error, ValueError):
        return Refused(422, str(error))
    log.error("the network failed", exc_info=error)
    return Refused(500, f"the network failed with {type(error).__name__}")
