"""A service in a thread of its own, asked through real sockets; members that give what they are told to give."""

from __future__ import annotations

import asyncio
import http.client
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pluria.predict import Batches, Block, Runner
from pluria.serve.app import application
from pluria.serve.inputs import Wanted
from pluria.serve.limits import Limits
from pluria.serve.panel import Panel, Pooling
from pluria.serve.server import listen, server


@dataclass(frozen=True)
class Reply:
    """What a service said."""

    code: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass(frozen=True)
class Running:
    """A service that runs, at a port of this machine."""

    port: int

    def ask(
        self, path: str, body: Any = None, *, kind: str = "application/json", method: str | None = None, **more: str
    ) -> Reply:
        """One request on a connection of its own; what is no bytes is sent as JSON."""
        data = body if isinstance(body, bytes | None) else json.dumps(body).encode()
        headers = {"content-type": kind, **more} if data is not None else more
        line = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            line.request(method or ("GET" if body is None else "POST"), path, data, headers)
            found = line.getresponse()
            return Reply(found.status, {k.lower(): v for k, v in found.getheaders()}, found.read())
        finally:
            line.close()

    def raw(self, *parts: bytes, pause: float = 0.0) -> bytes:
        """All that comes back for bytes as they are, sent part by part, until the service closes."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=60) as line:
            for part in parts:
                line.sendall(part)
                time.sleep(pause)
            found = b""
            while more := line.recv(65536):
                found += more
            return found


@contextmanager
def running(panel: Panel, wanted: Wanted, limits: Limits | None = None) -> Iterator[Running]:
    """The service until the block ends; then it is stopped as by a signal."""
    limits = limits or Limits()
    held = server(application(panel, wanted, limits=limits, title="Tests"), limits)
    with listen("127.0.0.1", 0) as place:
        thread = threading.Thread(target=lambda: asyncio.run(held.serve(sockets=[place])))
        thread.start()
        try:
            wait_for(lambda: held.started)
            yield Running(place.getsockname()[1])
        finally:
            held.handle_exit(15, None)
            thread.join(60)
            assert not thread.is_alive()


def wait_for(true: Callable[[], bool]) -> None:
    """Until something has come about, which is a matter of moments."""
    end = time.monotonic() + 60
    while not true():
        assert time.monotonic() < end, "it did not come about"
        time.sleep(0.005)


Before = Callable[[int, Tensor], None]


def told(outputs: Tensor, *, before: Before | None = None) -> Runner:
    """Members `[K, C]` that give the same outputs whatever they see, plus the first number of each input."""

    def run(batches: Batches, members: Sequence[int] | None = None) -> Iterator[Block]:
        for member in range(len(outputs)) if members is None else members:
            row = outputs[member]
            for batch in batches:
                if before is not None:
                    before(member, batch)
                found = row.expand(len(batch), -1) + batch.flatten(1)[:, :1] * torch.arange(len(row))
                yield Block(range(len(batch)), (member,), found[None].float(), None)

    return run


def panel_of(
    probabilities: list[list[float]],
    *,
    weights: list[float] | None = None,
    pooling: Pooling | None = None,
    before: Before | None = None,
) -> Panel:
    """A panel of members with these probabilities `[K, C]` for an input of zeros."""
    outputs = torch.tensor(probabilities, dtype=torch.float64).log()
    count, classes = outputs.shape
    held = torch.tensor(weights or [1 / count] * count, dtype=torch.float64)
    places = tuple((0, member) for member in range(count))
    return Panel((told(outputs, before=before),), places, held, tuple("abcdefgh"[:classes]), pooling or Pooling())
