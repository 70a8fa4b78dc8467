"""The queue: batches by size and by time, places, and an end after which what waits is still given out."""

from __future__ import annotations

import threading
import time

import torch

from pluria.serve.jobs import Event, Job, Queue


def job(count: int = 1, *, until: float = 1e9) -> Job:
    def tell(event: Event) -> None:
        raise AssertionError("nobody is told here")

    return Job(torch.zeros(count, 2), tell, time.monotonic() + until)


def test_a_batch_is_full_by_examples() -> None:
    queue = Queue(batch=4, wait=1e6, places=10)
    jobs = [job(2), job(2), job(3), job(2)]
    for one in jobs:
        assert queue.put(one)
    assert queue.take() == jobs[:2]
    assert len(queue) == 2
    assert queue.take() == jobs[2:3]  # the next would not fit


def test_a_large_job_is_a_batch_alone() -> None:
    queue = Queue(batch=4, wait=0.0, places=10)
    jobs = [job(9), job(1)]
    for one in jobs:
        queue.put(one)
    assert queue.take() == jobs[:1]


def test_a_batch_waits_no_longer_than_told() -> None:
    queue = Queue(batch=100, wait=0.05, places=10)
    first, second, late = job(), job(), job()
    queue.put(first)
    threading.Timer(0.01, queue.put, [second]).start()
    start = time.monotonic()
    assert queue.take() == [first, second]
    assert time.monotonic() - start >= 0.05
    queue.put(late)
    assert queue.take() == [late]


def test_places_are_counted() -> None:
    queue = Queue(batch=1, wait=0.0, places=2)
    assert [queue.put(job()) for _ in range(3)] == [True, True, False]
    queue.take()
    assert queue.put(job())


def test_what_waits_at_the_end_is_given_out() -> None:
    queue = Queue(batch=2, wait=1e6, places=10)
    jobs = [job(), job(), job()]
    for one in jobs:
        queue.put(one)
    queue.close()
    assert not queue.put(job())
    assert queue.take() == jobs[:2]
    assert queue.take() == jobs[2:]
    assert queue.take() is None


def test_closing_wakes_who_waits() -> None:
    queue = Queue(batch=2, wait=1e6, places=10)
    threading.Timer(0.02, queue.close).start()
    assert queue.take() is None


def test_jobs_that_nobody_waits_for_are_left_out() -> None:
    queue = Queue(batch=3, wait=0.0, places=10)
    late, dropped, good = job(until=-1.0), job(), job()
    dropped.dropped = True
    for one in (late, dropped, good):
        queue.put(one)
    assert queue.take() == [good]
    queue.put(late)
    assert queue.take() == []
