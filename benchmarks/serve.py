"""The service under load: many connections at once, each asking for one digit after the other.

    python -m benchmarks.serve [--connections 1000] [--seconds 30] [--members 8] [--queue 1024] [--out serve]

A small network is trained on the digits; `pluria serve` runs its low-precision members in a process of its own, and
this process is the client. Every connection sends one digit, waits for the answer, and sends the next. A refusal (503)
is counted, and its connection waits as long as `retry-after` says. After the time is up nothing new is sent, and what
was sent is waited for. An answer counts as right where its class is that of the same members run here. There is one
load for each `--queue`.
"""

from __future__ import annotations

import asyncio
import io
import re
import resource
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from rich.console import Console
from rich.table import Table

import pluria
from benchmarks.machine import load_average
from benchmarks.sides import Ratio, keep
from pluria.predict import predict
from pluria.zoo import network, read
from pluria.zoo.fit import fit

PROGRAM = [sys.executable, "-c", "from pluria.cli import main; main()"]
PERCENTS = (50, 90, 95, 99, 100)
LENGTH, CHOICE, WAIT = (re.compile(p) for p in (rb"content-length: (\d+)", rb'"class":(\d+)', rb"retry-after: (\d+)"))
PATIENCE = 120
"""Seconds after which a request that has no answer is an error."""


@dataclass
class Load:
    """What one load gave. Seconds are those from sending a request to having read its answer."""

    connections: int
    queue: int
    seconds: float
    sent: int = 0
    answered: int = 0
    right: int = 0
    refused: int = 0
    errors: dict[str, int] = field(default_factory=dict)
    answers_per_second: float = 0.0
    seconds_by_percent: dict[str, float] = field(default_factory=dict)
    mean_batch: float = 0.0


def prepared(folder: Path, members: int) -> tuple[Path, list[bytes], list[int]]:
    """A file of members, requests of one digit each, and the class that the members give each digit here."""
    test = read("digits", split="test")
    model = fit(network("small_cnn"), read("digits", split="train"), epochs=6, batch=64, rate=0.003, seed=0)
    ensemble = pluria.low_precision(model, format="int4", members=members)
    about = {"network": {"model": "small_cnn", "arguments": {}}, "classes": list(test.classes)}
    pluria.save(folder / "digits.pluria", ensemble, about=about)
    rows = (test.inputs.float() * 255 / 16).round().to(torch.uint8)
    outputs, _ = pluria.gather(predict(model, ensemble, [rows.float() / 255]))
    choices: list[int] = pluria.mean_probability(outputs).argmax(-1).tolist()
    return folder / "digits.pluria", [_request(row.numpy()) for row in rows], choices


def _request(row: Any) -> bytes:
    stream = io.BytesIO()
    np.save(stream, row[None])
    body = stream.getvalue()
    head = f"POST /predict HTTP/1.1\r\nhost: x\r\ncontent-type: application/octet-stream\r\ncontent-length: {len(body)}"
    return head.encode() + b"\r\n\r\n" + body


async def ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request: bytes) -> tuple[int, bytes, bytes]:
    """Status, head and body of the answer."""
    writer.write(request)
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    found = LENGTH.search(head)
    assert found is not None, head
    return int(head[9:12]), head, await reader.readexactly(int(found[1]))


async def connection(
    port: int, number: int, requests: list[bytes], choices: list[int], end: float, load: Load
) -> list[float]:
    """One connection until the time is up; seconds of its answers."""
    seconds: list[float] = []
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    at = number
    while time.monotonic() < end:
        at, start = (at + 1) % len(requests), time.monotonic()
        load.sent += 1
        async with asyncio.timeout(PATIENCE):
            code, head, body = await ask(reader, writer, requests[at])
        if code == 200:
            seconds.append(time.monotonic() - start)
            load.answered += 1
            found = CHOICE.search(body)
            load.right += found is not None and int(found[1]) == choices[at]
        elif code == 503:
            load.refused += 1
            wait = WAIT.search(head)
            await asyncio.sleep(float(wait[1]) if wait else 1.0)
        else:
            raise RuntimeError(f"status {code}")
    writer.close()
    return seconds


async def hold(port: int, requests: list[bytes], choices: list[int], load: Load) -> None:
    """Hold the load and write down what came of it."""
    end = time.monotonic() + load.seconds
    start = time.monotonic()
    tasks = [connection(port, n, requests, choices, end, load) for n in range(load.connections)]
    ended = await asyncio.gather(*tasks, return_exceptions=True)
    taken = time.monotonic() - start
    load.errors = dict(Counter(repr(one) for one in ended if isinstance(one, BaseException)))
    seconds = np.concatenate([one for one in ended if not isinstance(one, BaseException)] or [np.zeros(0)])
    load.answers_per_second = round(load.answered / taken, 1)
    if len(seconds):
        load.seconds_by_percent = {str(p): round(float(np.percentile(seconds, p)), 4) for p in PERCENTS}
    figures = dict(line.split() for line in await _metrics(port) if not line.startswith("#"))
    load.mean_batch = round(
        float(figures["pluria_batch_examples_sum"]) / float(figures["pluria_batch_examples_count"]), 1
    )


async def _metrics(port: int) -> list[str]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    _, _, body = await ask(reader, writer, b"GET /metrics HTTP/1.1\r\nhost: x\r\n\r\n")
    writer.close()
    return body.decode().splitlines()


def measured(file: Path, requests: list[bytes], choices: list[int], load: Load) -> int:
    """One service, one load; the service's exit code."""
    words = [*PROGRAM, "serve", str(file), "--port", "0", "--queue", str(load.queue), "--quiet"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        port = int(process.stdout.readline().rsplit(":", 1)[1].split("/")[0])
        try:
            asyncio.run(hold(port, requests, choices, load))
        finally:
            process.terminate()
        return process.wait()


def allow(connections: int) -> None:
    """As many open files as the connections take, here and in the service."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < connections + 200:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, connections + 200), hard))


def told(load: Load) -> Ratio:
    """The share of requests that were answered; the others were refused."""
    share = load.answered / load.sent if load.sent else 0.0
    what = f"{load.connections} connections, queue of {load.queue}: answered / sent"
    return Ratio(f"{what}, at {load.answers_per_second:.0f} answers a second", share, share, share)


def table(loads: list[Load]) -> Table:
    """A row for each load."""
    counts = ("connections", "queue", "sent", "answered", "right", "refused", "errors")
    out = Table(*counts, "a second", "batch", *map(str, PERCENTS))
    for load in loads:
        held = {**asdict(load), "errors": sum(load.errors.values())}
        times = [f"{load.seconds_by_percent.get(str(p), float('nan')):.3f}" for p in PERCENTS]
        out.add_row(
            *(str(held[name]) for name in counts), f"{load.answers_per_second:.0f}", f"{load.mean_batch:.1f}", *times
        )
    return out


def main(
    connections: Annotated[int, typer.Option(help="Held at once.")] = 1000,
    seconds: Annotated[float, typer.Option(help="Of each load.")] = 30.0,
    members: Annotated[int, typer.Option(help="INT-4 members.")] = 8,
    queue: Annotated[list[int], typer.Option(help="Requests that may wait; a load for each.")] = [1024, 100],  # noqa: B006
    out: Annotated[str, typer.Option(help="Name of the result.")] = "serve",
) -> None:
    """Measure the service under load on this machine."""
    allow(connections)
    before = load_average()
    loads = [Load(connections, places, seconds) for places in queue]
    with tempfile.TemporaryDirectory() as folder:
        file, requests, choices = prepared(Path(folder), members)
        codes = [measured(file, requests, choices, load) for load in loads]
    about = {"network": "small_cnn, digits", "members": members, "format": "int4", "exit_codes": codes}
    keep(out, list(map(told, loads)), load_average=before, **about, loads=list(map(asdict, loads)))
    typer.echo(
        f"{members} INT-4 members of a small network of the digits; {seconds:g} seconds a load; seconds by percent"
    )
    Console(width=150).print(table(loads))


if __name__ == "__main__":
    typer.run(main)
