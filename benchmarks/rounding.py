"""Stochastic rounding per channel: plain torch, the reference, the fused loop, members from notes, and a bare copy.

    python -m benchmarks.rounding [--weights 64000000] [--threads N ...] [--repeats 5] [--format int4]

All take turns of half a second within each repeat, on the same tensors and threads; the best time counts.
GB/s counts four bytes read and four written for each weight. From notes, which read two: any but the first of sixteen.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from typing import Annotated
from unittest.mock import patch

import torch
import typer
from rich.console import Console
from rich.table import Table
from torch import Tensor

from benchmarks.sides import Ratio, keep, ratio, turns
from pluria.numbers import kernel
from pluria.numbers.format import number_format
from pluria.numbers.grid import Grid, fit_grid, layout
from pluria.numbers.key import Key
from pluria.numbers.rounding import Address, round_stochastic
from pluria.numbers.strata import Strata

INPUTS = 4000
TURN = 0.5
"""Seconds of each way's turn within a round."""
PLACE = Address(Key(0), 1, 0, 0)


@dataclass(frozen=True)
class Row:
    """One way to write the tensor; `plain` and `copy` are its speed in units of the two yardsticks."""

    name: str
    seconds: float
    weights_per_second: float
    gigabytes_per_second: float
    plain: float
    copy: float


def plain(weight: Tensor, grid: Grid, out: Tensor) -> None:
    """The expression as one writes it first."""
    v = weight / grid.scale
    low = torch.floor(v)
    torch.mul(low + (torch.rand_like(v) < v - low), grid.scale, out=out)


def reference(weight: Tensor, grid: Grid, out: Tensor) -> None:
    """Pluria without its compiled loops."""
    with patch.object(kernel, "available", lambda device: False):
        round_stochastic(weight, grid, PLACE, out)


def fused(weight: Tensor, grid: Grid, out: Tensor) -> None:
    """Pluria's kernel."""
    assert kernel.serves(weight, grid, out), "the kernel does not serve this format here"
    round_stochastic(weight, grid, PLACE, out)


def copy(weight: Tensor, grid: Grid, out: Tensor) -> None:
    """What memory allows."""
    out.copy_(weight)


Way = Callable[[Tensor, Grid, Tensor], None]


def ways() -> dict[str, Way]:
    """All ways for one tensor."""
    strata = Strata()

    def noted(weight: Tensor, grid: Grid, out: Tensor) -> None:
        round_stochastic(weight, grid, PLACE, out, strata=strata)

    return {"plain torch": plain, "reference": reference, "kernel": fused, "from notes": noted, "copy": copy}


def quickest(way: Way, weight: Tensor, grid: Grid, out: Tensor) -> float:
    """Seconds of the quickest of as many runs as fit into `TURN`; at least one."""
    best, begin = float("inf"), time.perf_counter()
    while (start := time.perf_counter()) - begin < TURN:
        way(weight, grid, out)
        best = min(best, time.perf_counter() - start)
    return best


def measure(weights: int, repeats: int, format: str) -> list[Row]:
    """Best times over `repeats` rounds, in each of which every way has its turn."""
    weight = torch.randn(max(1, weights // INPUTS), INPUTS, generator=torch.Generator().manual_seed(0))
    grid = fit_grid(weight, number_format(format), layout=layout(weight.shape))
    out = torch.zeros_like(weight)
    fused(weight[:1], fit_grid(weight[:1], grid.format, layout=layout((1, INPUTS))), out[:1])  # compiles
    found = ways()
    best = dict.fromkeys(found, float("inf"))
    for _ in range(repeats):
        for name, way in found.items():
            best[name] = min(best[name], quickest(way, weight, grid, out))
    count, moved = weight.numel(), 2 * weight.nbytes
    return [
        Row(name, t, count / t, moved / t / 1e9, best["plain torch"] / t, best["copy"] / t) for name, t in best.items()
    ]


def stored(weights: int, repeats: int, format: str, threads: int) -> list[Ratio]:
    """The same ways in turns, as ratios with their spread."""
    weight = torch.randn(max(1, weights // INPUTS), INPUTS, generator=torch.Generator().manual_seed(0))
    grid, out = fit_grid(weight, number_format(format), layout=layout(weight.shape)), torch.zeros_like(weight)
    seconds = turns({name: partial(way, weight, grid, out) for name, way in ways().items()}, repeats)
    what = f"{weight.numel():,} weights, {format}, {threads} threads: "
    found = [ratio(f"{what}kernel / {name}", seconds["kernel"], seconds[name]) for name in seconds if name != "kernel"]
    return [*found, ratio(f"{what}from notes / copy", seconds["from notes"], seconds["copy"])]


def table(rows: list[Row]) -> Table:
    out = Table("way", "seconds", "weights/s", "GB/s", "x plain torch", "x copy")
    for row in rows:
        speed = f"{row.weights_per_second / 1e9:.3f} G"
        out.add_row(
            row.name,
            f"{row.seconds:.3f}",
            speed,
            f"{row.gigabytes_per_second:.1f}",
            f"{row.plain:.1f}",
            f"{row.copy:.2f}",
        )
    return out


def main(
    weights: Annotated[int, typer.Option(help="Weights of the tensor, float32.")] = 64_000_000,
    threads: Annotated[list[int], typer.Option(help="Threads of torch and of the kernel.")] = [1, 2],  # noqa: B006
    repeats: Annotated[int, typer.Option(help="Rounds; the best counts.")] = 5,
    format: Annotated[str, typer.Option(help="Number format.")] = "int4",
) -> None:
    """Measure stochastic rounding on this machine."""
    ratios, best = [], {}
    for count in threads:
        torch.set_num_threads(count)
        rows = measure(weights, repeats, format)
        Console().print(f"{weights:,} float32 weights, {format}, rows of {INPUTS}, {count} threads; best of {repeats}")
        Console().print(table(rows))
        best[count] = [asdict(row) for row in rows]
        ratios += stored(weights, repeats, format, count)
    keep("rounding", ratios, best_by_threads=best)


if __name__ == "__main__":
    typer.run(main)
