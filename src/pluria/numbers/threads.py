"""Work over elements on as many threads as torch uses: torch's own, where they can be reached, or threads of our own.

Torch's threads keep their cores busy for some milliseconds after a forward, in case more comes. Others would have to
share the cores with them; so work goes to them, by the call that compilers make for a parallel loop (GNU's OpenMP).
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from threading import local
from typing import Any

import torch

SHARE = 2**18
"""Fewest elements worth a thread of their own."""

PIECES = 4
"""Pieces for each thread, where they are large enough: a core that is busy with something else does fewer."""

MOST = 2**25
"""Elements that are put off: what is rounded may have been made for that alone, and waits in memory."""

HOME = os.getpid()
"""GNU's OpenMP does not survive a fork, whose child has none of its threads and takes some of its own."""

BODY = ctypes.CFUNCTYPE(None, ctypes.c_void_p)

Work = Callable[[int, int], None]
Job = tuple[Work, int, int]
_put_off = local()


def share(work: Work, count: int, block: int) -> None:
    """Run work(start, stop) over 0..count in whole blocks, on the calling thread too; the first error is raised."""
    jobs = getattr(_put_off, "jobs", None)
    if jobs is None:
        _run([(work, count, block)])
    else:
        jobs.append((work, count, block))
        if sum(waiting for _, waiting, _ in jobs) >= MOST:
            _run(jobs)
            jobs.clear()


@contextmanager
def together() -> Iterator[None]:
    """What this thread shares inside is run at the end, or when it is much: threads wait once, and not for each."""
    if getattr(_put_off, "jobs", None) is not None:
        yield
        return
    jobs: list[Job] = []
    _put_off.jobs = jobs
    try:
        yield
    finally:
        _put_off.jobs = None
    _run(jobs)


def _run(jobs: Sequence[Job]) -> None:
    total = sum(count for _, count, _ in jobs)
    threads = max(1, min(torch.get_num_threads(), total // SHARE))
    if threads == 1:
        for work, count, _ in jobs:
            if count:
                work(0, count)
        return
    pieces = _pieces(jobs, max(SHARE, total // (threads * PIECES)))
    errors: list[BaseException] = []

    def some() -> None:
        try:
            for work, start, stop in pieces:  # each piece goes to the thread that asks first
                work(start, stop)
        except BaseException as error:  # a thread of OpenMP has nobody to raise it to
            errors.append(error)

    team = _team() if os.getpid() == HOME else None
    if team is None:
        others = [_pool(os.getpid()).submit(some) for _ in range(threads - 1)]
        some()
        for other in others:
            other.result()
    else:
        team(BODY(lambda _: some()), None, threads, 0)
    if errors:
        raise errors[0]


def _pieces(jobs: Sequence[Job], size: int) -> Iterator[tuple[Work, int, int]]:
    """Each job in equal pieces of about `size`, whole blocks each, in an iterator that threads may share."""
    found = []
    for work, count, block in jobs:
        step = max(1, -(-count // (max(1, count // size) * block))) * block
        found += [(work, start, min(start + step, count)) for start in range(0, count, step)]
    return iter(found)


@lru_cache(maxsize=1)
def _team() -> Any:
    """GNU OpenMP's `GOMP_parallel` of the library that torch brings, None where torch has another."""
    for path in sorted((Path(torch.__file__).parent / "lib").glob("libgomp*.so*")):
        try:
            team = ctypes.CDLL(str(path), mode=os.RTLD_NOLOAD).GOMP_parallel
        except (OSError, AttributeError):
            continue
        team.argtypes, team.restype = (BODY, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint), None
        return team
    return None


@lru_cache(maxsize=1)
def _pool(process: int) -> ThreadPoolExecutor:
    """Threads that wait for work, since starting one takes as long as rounding a layer; a fork gets its own."""
    return ThreadPoolExecutor(max(1, (os.cpu_count() or 2) - 1), thread_name_prefix="pluria-rounding")
