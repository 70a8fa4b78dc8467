"""Stochastic rounding on a GPU: the kernel, plain torch, and a bare copy, side by side.

    python -m benchmarks.gpu_rounding [--weights 268435456] [--repeats 20] [--json]

Ways take turns on the same tensors, with a cold cache. Bandwidth counts bytes read and written. The first member is
compared bit for bit with the CPU's before anything is timed. Without a GPU it says so and ends.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Annotated
from unittest.mock import patch

import torch
import typer
from rich.console import Console
from rich.table import Table
from torch import Tensor

from benchmarks.gpu_clock import about, interleaved, no_gpu
from pluria.numbers import gpu
from pluria.numbers.format import number_format
from pluria.numbers.grid import Grid, fit_grid, layout
from pluria.numbers.key import Key
from pluria.numbers.rounding import Address, round_stochastic

INPUTS = 4096
PLACE = Address(Key(0), 1, 0, 0)
CHECKED = 64
"""Rows that are compared with the CPU's."""


@dataclass(frozen=True)
class Row:
    """One way to write a member; `copy` is its speed in units of a bare copy."""

    dtype: str
    name: str
    milliseconds: float
    best: float
    worst: float
    gigabytes_per_second: float
    copy: float


def plain(weight: Tensor, grid: Grid, out: Tensor) -> None:
    """Pluria without its kernels."""
    with patch.object(gpu, "available", lambda device: False):
        round_stochastic(weight, grid, PLACE, out)


def fused(weight: Tensor, grid: Grid, out: Tensor) -> None:
    """Pluria's kernel."""
    place = (PLACE.key.words, PLACE.tensor, PLACE.group, PLACE.mask)
    assert gpu.serves(weight, grid, out), "the kernel does not serve this format here"
    gpu.round_stochastic(weight, grid, *place, out)


def check(weight: Tensor, grid: Grid, out: Tensor) -> None:
    """Raise AssertionError where the first rows are not those of the CPU."""
    fused(weight, grid, out)
    few = weight[:CHECKED].cpu()
    want = torch.empty_like(few)
    round_stochastic(few, fit_grid(few, grid.format, layout=layout(few.shape)), PLACE, want)
    assert torch.equal(out[:CHECKED].cpu(), want), "the GPU's members are not the CPU's"


def measure(weights: int, repeats: int, format: str, dtype: torch.dtype, device: torch.device) -> list[Row]:
    """Times of every way from `dtype` to itself."""
    shape = (max(1, weights // INPUTS), INPUTS)
    weight = torch.randn(shape, generator=torch.Generator(device).manual_seed(0), device=device).to(dtype)
    grid, out = fit_grid(weight, number_format(format), layout=layout(weight.shape)), torch.zeros_like(weight)
    check(weight, grid, out)
    ways = {
        "plain torch": lambda: plain(weight, grid, out),
        "kernel": lambda: fused(weight, grid, out),
        "copy": lambda: out.copy_(weight),
    }
    times, name = interleaved(ways, repeats=repeats, device=device), str(dtype).removeprefix("torch.")
    moved = 2 * weight.numel() * weight.element_size()
    return [
        Row(
            name, way, 1e3 * t.median, 1e3 * t.best, 1e3 * t.worst, moved / t.median / 1e9,
            times["copy"].median / t.median,
        )
        for way, t in times.items()
    ]  # fmt: skip


def table(rows: list[Row]) -> Table:
    """One line for each way."""
    out = Table("dtype", "way", "ms", "from..to", "GB/s", "x copy")
    for row in rows:
        span = f"{row.best:.3f}..{row.worst:.3f}"
        speed = (f"{row.milliseconds:.3f}", span, f"{row.gigabytes_per_second:.0f}", f"{row.copy:.2f}")
        out.add_row(row.dtype, row.name, *speed)
    return out


def main(
    weights: Annotated[int, typer.Option(help="Weights of the tensor.")] = 2**28,
    repeats: Annotated[int, typer.Option(help="Turns that count.")] = 20,
    format: Annotated[str, typer.Option(help="Number format, an integer one.")] = "int4",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Measure stochastic rounding on this machine's GPU."""
    if (reason := no_gpu()) is not None:
        typer.echo(reason)
        return
    device, machine = torch.device("cuda"), {**about(), "date": datetime.now(UTC).isoformat(timespec="seconds")}
    rows = [row for kind in (torch.float32, torch.bfloat16) for row in measure(weights, repeats, format, kind, device)]
    if as_json:
        typer.echo(json.dumps({"machine": machine, "weights": weights, "format": format, "rows": [*map(asdict, rows)]}))
        return
    typer.echo("  ".join(f"{name} {value}" for name, value in machine.items()))
    typer.echo(f"{weights:,} weights, {format}, one scale per row of {INPUTS}; median of {repeats}")
    Console().print(table(rows))


if __name__ == "__main__":
    typer.run(main)
