"""Processes: a mapper over processes of this machine, started anew (spawn), each with its own number of threads."""

from __future__ import annotations

import contextlib
import multiprocessing
import pickle
import signal
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any, NoReturn

import torch

from pluria.predict.map import Answer, Item, Lost, Result, over, packed_answer, packed_task

CONTEXT = multiprocessing.get_context("spawn")
"""A forked process may hang: torch's threads do not come with it."""

PATIENCE = 10.0
"""Seconds that a worker has to end before it is killed."""


@dataclass(frozen=True)
class Processes:
    """A mapper over `workers` processes of `threads` threads each; None: as many threads as this process has.

    A script that uses it needs `if __name__ == "__main__":` around its work, as every process reads it again. Tasks,
    items and results are pickled. A worker that dies is replaced (see `over`). Raises ValueError for no workers.
    """

    workers: int
    threads: int | None = None

    def __post_init__(self) -> None:
        if self.workers < 1 or (self.threads is not None and self.threads < 1):
            raise ValueError(f"workers and threads are one or more; got {self.workers} and {self.threads}")

    def __call__(self, task: Callable[[Item], Result], items: Sequence[Item]) -> Generator[Result]:
        if items:
            count, threads = min(self.workers, len(items)), self.threads or torch.get_num_threads()
            yield from over(_Crew(packed_task(task), count, threads), items)


class _Crew:
    def __init__(self, task: bytes, count: int, threads: int) -> None:
        self.task, self.count, self.threads = task, count, threads
        self.workers = [self._start() for _ in range(count)]
        self.busy: set[int] = set()
        for _, pipe in self.workers:
            _send(pipe, task)

    def hand(self, worker: int, item: Any) -> None:
        self.busy.add(worker)
        _send(self.workers[worker][1], pickle.dumps(item))

    def reports(self) -> list[tuple[int, Answer | Lost]]:
        pipes = {self.workers[worker][1]: worker for worker in self.busy}
        found = [(pipes[pipe], self._report(pipes[pipe])) for pipe in wait(list(pipes)) if isinstance(pipe, Connection)]
        self.busy -= {worker for worker, _ in found}
        return found

    def replace(self, worker: int) -> None:
        self.workers[worker] = self._start()
        _send(self.workers[worker][1], self.task)

    def close(self) -> None:
        for process, pipe in self.workers:
            pipe.close()
            process.terminate()
        for process, _ in self.workers:
            process.join(PATIENCE)
            if process.is_alive():
                process.kill()

    def _start(self) -> tuple[BaseProcess, Connection]:
        here, there = CONTEXT.Pipe()
        process = CONTEXT.Process(target=_work, args=(there, self.threads), daemon=True)
        process.start()
        # With the only other end in the worker, its death closes the pipe.
        there.close()
        return process, here

    def _report(self, worker: int) -> Answer | Lost:
        process, pipe = self.workers[worker]
        try:
            found: Answer = pickle.loads(pipe.recv_bytes())
        except (EOFError, OSError):
            process.join(PATIENCE)
            return Lost(_end(process.exitcode))
        return found


def _send(pipe: Connection, content: bytes) -> None:
    # Where the worker is gone, waiting for its report tells.
    with contextlib.suppress(OSError):
        pipe.send_bytes(content)


def _work(pipe: Connection, threads: int) -> None:
    """What a worker does: read the task, then answer items until the other end is closed."""
    # Ctrl-C goes to the whole group; the process that was asked ends the others.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(threads)
    try:
        task = _read(pipe.recv_bytes())
        while True:
            pipe.send_bytes(packed_answer(task, pipe.recv_bytes()))
    except (EOFError, OSError):
        return


def _read(content: bytes) -> Callable[[Any], Any]:
    try:
        return pickle.loads(content)  # type: ignore[no-any-return]
    except Exception as error:  # modules that are not there, and whatever they raise
        return partial(_raise, error)


def _raise(error: Exception, item: Any) -> NoReturn:
    raise error


def _end(code: int | None) -> str:
    if code is not None and code < 0:
        name = signal.Signals(-code).name
        return f"killed by {name}" + (", perhaps for want of memory" if name == "SIGKILL" else "")
    # As it does where every process begins the script's work anew.
    return f"ended by itself with code {code} (a script needs `if __name__ == '__main__':` around its work)"
