"""Ray: a mapper over actors on a Ray cluster, of this machine or at an address."""

from __future__ import annotations

import logging
import os
import pickle
import socket
import sys
import time
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from pluria.core.errors import EngineError
from pluria.predict.map import Answer, Item, Lost, Result, answer, over, packed_task

START, PULSE, REACH, ANSWER = 60.0, 5.0, 5.0, 20.0
"""Seconds that workers have to start, between looks whether Ray is still there, and that an address has to listen and
to answer: a busy cluster may take its time."""


SETTINGS = 4
HELLO = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, SETTINGS, 0, 0, 0, 0, 0])
"""How a client of HTTP/2 begins: its preface, and an empty frame of settings (RFC 9113, sections 3.4 and 6.5)."""


@dataclass(frozen=True)
class Ray:
    """A mapper over `workers` Ray actors of `threads` threads each; None: as many threads as this process has.

    address   `host:port` of a running cluster; None: one of this machine alone, ended with the work

    Every machine of the cluster needs the same packages. Where this process is connected to Ray already, that
    connection is used and left open. An actor that dies is replaced (see `over`). Raises EngineError
    without Ray, and where the address does not answer, is no longer there, or has too few processors.
    """

    workers: int
    threads: int | None = None
    address: str | None = None

    def __post_init__(self) -> None:
        if self.workers < 1 or (self.threads is not None and self.threads < 1):
            raise ValueError(f"workers and threads are one or more; got {self.workers} and {self.threads}")

    def __call__(self, task: Callable[[Item], Result], items: Sequence[Item]) -> Generator[Result]:
        if items:
            packed, count = packed_task(task), min(self.workers, len(items))
            threads = self.threads or torch.get_num_threads()
            yield from over(_Crew(_connected(self.address, count), packed, count, threads), items)


def _connected(address: str | None, count: int) -> tuple[Any, bool]:
    """The library, connected, and whether it was connected here."""
    try:
        import ray
    except ImportError:
        raise EngineError("the engine `ray` needs Ray: pip install 'pluria[ray]'") from None
    if ray.is_initialized():
        return ray, False
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.CRITICAL}
    if address is None:
        # A cluster that is started here tells nobody that it was.
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        ray.init(num_cpus=count, include_dashboard=False, **options)
        return ray, True
    reach(address)
    try:
        ray.init(address=address, **options)
    except (ConnectionError, RuntimeError, ray.exceptions.RayError) as error:
        token = "; a cluster with tokens needs RAY_AUTH_MODE=token in the environment" if _refused(error) else ""
        raise EngineError(f"Ray at {address} cannot be used: {str(error).splitlines()[0]}{token}") from None
    return ray, True


def _refused(error: BaseException | None) -> bool:
    while error is not None and "AuthenticationError" not in str(error):
        error = error.__cause__
    return error is not None


def reach(address: str, problem: str = "does not answer", *, greet: bool = True) -> None:
    """Raise EngineError where nothing listens at an address, or, with `greet`, nothing of Ray's kind.

    The library itself takes minutes to say so.
    """
    host, _, port = address.rpartition(":")
    if not host or "/" in host or not port.isdecimal():
        raise EngineError(f"an address of Ray is host:port, such as 127.0.0.1:6379; got {address!r}")
    try:
        with socket.create_connection((host, int(port)), timeout=REACH) as one:
            if greet and os.environ.get("RAY_USE_TLS", "0") == "0":
                _greet(one)
    except (OSError, UnicodeError, OverflowError) as error:  # the last two: names and ports that there cannot be
        why = getattr(error, "strerror", None) or error
        raise EngineError(
            f"Ray at {address} {problem} ({why}). `ray start --head` starts one and says its address"
        ) from None


def _greet(one: socket.socket) -> None:
    """Raise OSError unless the other side speaks HTTP/2, as Ray does (gRPC): it answers with a frame of settings."""
    one.settimeout(ANSWER)
    one.sendall(HELLO)
    head = one.recv(9)
    if len(head) < 4 or head[3] != SETTINGS:
        raise OSError("what listens there is not Ray")


class Worker:
    """What an actor is: the task, and answers to items."""

    def __init__(self, packed: bytes, threads: int, places: list[str]) -> None:
        # Modules are looked for where the caller finds them, as in processes; folders that are not here do no harm.
        sys.path.extend(place for place in places if place not in sys.path)
        torch.set_num_threads(threads)
        self.task = pickle.loads(packed)

    def ready(self) -> None:
        """Done as soon as the actor is there."""

    def work(self, item: Any) -> Answer:
        """The answer to one item."""
        return answer(self.task, item)


class _Crew:
    def __init__(self, connected: tuple[Any, bool], packed: bytes, count: int, threads: int) -> None:
        self.ray, self.own = connected
        self.count, self.address = count, self.ray.get_runtime_context().gcs_address
        self.kind = self.ray.remote(num_cpus=1, max_restarts=0)(Worker)
        self.task, self.threads = self.ray.put(packed), threads
        self.workers: list[Any] = []
        self.asked: dict[Any, int] = {}
        self.looked = time.monotonic()
        try:
            self.workers = self._start(count)
        except BaseException:
            self.close()
            raise

    def hand(self, worker: int, item: Any) -> None:
        self.asked[self.workers[worker].work.remote(item)] = worker

    def reports(self) -> list[tuple[int, Answer | Lost]]:
        done: list[Any] = []
        while not done:
            done, _ = self.ray.wait(list(self.asked), timeout=PULSE)
            # Ray itself says nothing for a minute, and then ends this process.
            if time.monotonic() - self.looked > PULSE:
                reach(self.address, "is no longer there", greet=False)
                self.looked = time.monotonic()
        return [(self.asked.pop(one), self._report(one)) for one in done]

    def replace(self, worker: int) -> None:
        (self.workers[worker],) = self._start(1)

    def close(self) -> None:
        for worker in self.workers:
            self.ray.kill(worker)
        if self.own:
            self.ray.shutdown()

    def _start(self, count: int) -> list[Any]:
        made = [self.kind.remote(self.task, self.threads, sys.path) for _ in range(count)]
        started, _ = self.ray.wait([worker.ready.remote() for worker in made], num_returns=count, timeout=START)
        if len(started) < count:
            reach(self.address, "is no longer there", greet=False)
            have = self.ray.cluster_resources().get("CPU", 0)
            raise EngineError(
                f"Ray started {len(started)} of {count} workers within {START:g} s; its cluster has {have:g} "
                "processors, and every worker takes one. Ask for fewer workers, or wait until others are done"
            )
        for one in started:
            self._answered(one)
        return made

    def _answered(self, one: Any) -> None:
        try:
            self.ray.get(one)
        except self.ray.exceptions.RayError as error:
            raise EngineError(f"a worker on Ray did not start: {_line(error)}") from None

    def _report(self, one: Any) -> Answer | Lost:
        try:
            found: Answer = self.ray.get(one)
        except (self.ray.exceptions.RayActorError, self.ray.exceptions.WorkerCrashedError) as error:
            return Lost(f"lost by Ray ({_line(error)})")
        except self.ray.exceptions.RayError as error:
            return Answer(error=EngineError(f"Ray failed: {_line(error)}"))
        return found


def _line(error: BaseException) -> str:
    """The first sentence of the last line of Ray's account, which says the reason."""
    last = next((line for line in reversed(str(error).splitlines()) if line.strip()), type(error).__name__)
    return last.strip().split(". ")[0]
