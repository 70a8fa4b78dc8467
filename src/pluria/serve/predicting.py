"""`/predict`: a request becomes a job, its events an answer, or a stream of lines."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from torch import Tensor

from pluria.serve.asking import Asking, asking
from pluria.serve.body import read_body
from pluria.serve.inputs import Wanted, read_inputs
from pluria.serve.jobs import Event, Job, Queue
from pluria.serve.limits import Limits
from pluria.serve.panel import Panel
from pluria.serve.refused import Refused

SMALL = 2**16
"""Bytes up to which reading a body in a thread of its own costs more than it frees."""

LINES = "application/x-ndjson"


@dataclass(frozen=True, eq=False)
class Predicting:
    """The page `/predict`. Refused besides what is read: 413 too many examples, 503 no place, 504 no answer in time."""

    panel: Panel
    wanted: Wanted
    limits: Limits
    queue: Queue

    async def answer(self, request: Request) -> Response:
        """One request; all errors are `Refused`."""
        asked = asking(request.query_params)
        if (asked.rule or asked.stream) and not self.panel.pooling.running:
            raise Refused(400, "the pool of this file has an answer of all members only: ask without stop and stream")
        inputs = await self._inputs(request)
        if len(inputs) > self.limits.batch:
            raise Refused(413, f"{len(inputs)} examples; at most {self.limits.batch} a request")
        job, events = self._put(inputs, asked)
        if asked.stream:
            return StreamingResponse(_lines(job, events), media_type=LINES)
        event = await _next(job, events)
        return JSONResponse({"answers": event["answers"]})

    async def _inputs(self, request: Request) -> Tensor:
        body, kind = await read_body(request, self.limits), request.headers.get("content-type", "")
        if len(body) <= SMALL and not kind.startswith("image/"):
            return read_inputs(body, kind, self.wanted)
        return await run_in_threadpool(read_inputs, body, kind, self.wanted)

    def _put(self, inputs: Tensor, asked: Asking) -> tuple[Job, asyncio.Queue[Event]]:
        events: asyncio.Queue[Event] = asyncio.Queue()
        until = time.monotonic() + self.limits.answer
        job = Job(inputs, _telling(events), until, asked.members, asked.stream, asked.rule)
        if not self.queue.put(job):
            raise Refused(503, f"{self.limits.queue} requests wait already; try again", {"retry-after": "1"})
        return job, events


def _telling(events: asyncio.Queue[Event]) -> Callable[[Event], None]:
    """Puts an event into the queue of the event loop, from the worker's thread."""
    loop = asyncio.get_running_loop()

    def tell(event: Event) -> None:
        with suppress(RuntimeError):  # the loop is closed: nobody waits
            loop.call_soon_threadsafe(events.put_nowait, event)

    return tell


async def _next(job: Job, events: asyncio.Queue[Event]) -> dict[str, Any]:
    """The next event of a job; whoever stops waiting drops the job."""
    start, until = time.monotonic(), job.until
    try:
        async with asyncio.timeout(until - start):
            event = await events.get()
    except TimeoutError:
        job.dropped = True
        raise Refused(504, "no answer in time: too many ask, or the network is too slow for its limit") from None
    except asyncio.CancelledError:
        job.dropped = True
        raise
    if isinstance(event, Refused):
        raise event
    return event


async def _lines(job: Job, events: asyncio.Queue[Event]) -> AsyncIterator[str]:
    """A line after each member; a refusal after the first line can only be a line too."""
    try:
        done = False
        while not done:
            event = await _next(job, events)
            done = event["done"]
            yield json.dumps(event) + "\n"
    except Refused as error:
        yield json.dumps({"done": True, "error": error.reason}) + "\n"
    finally:
        job.dropped = True
