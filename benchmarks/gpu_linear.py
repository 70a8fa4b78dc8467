"""A linear layer for K members on a GPU: tiles of several sizes, K calls of F.linear, bmm, and one model, side by side.

    python -m benchmarks.gpu_linear [--members 8] [--repeats 20] [--quick] [--json]

Everything is bfloat16. `one model` is a single F.linear, the price that K members are measured by; `K linear` and `bmm`
read K copies of the weights, which lie ready. Ways take turns, with a cold cache. Each product is compared with float32
before it is timed. Without a GPU it says so and ends.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Annotated

import torch
import typer
from rich.console import Console
from rich.table import Table
from torch import Tensor
from torch.nn.functional import linear

from benchmarks.gpu_clock import Work, about, interleaved, no_gpu
from pluria.core.family import Shared, block
from pluria.core.rounded import Rounded
from pluria.numbers.format import number_format
from pluria.numbers.grid import layout
from pluria.numbers.key import Key
from pluria.predict.kernels.operands import Operand, drawn, planes
from pluria.predict.kernels.product import Tiles, product, reference

SHAPES = ((4096, 4096), (14336, 4096), (4096, 14336))
"""Outputs and inputs of the layers of an 8B language model."""

ROWS = (1, 16, 256)
BOUND = 2.0**-7
"""Largest error of a product, in units of its largest value: one rounding to bfloat16."""


@dataclass(frozen=True)
class Row:
    """One way to make a product; `models` is its time in units of one model's."""

    shape: str
    rows: int
    inputs: str
    name: str
    milliseconds: float
    best: float
    worst: float
    models: float


def tiles(quick: bool) -> list[Tiles]:
    """Sizes to try."""
    if quick:
        return [Tiles()]
    sizes = itertools.product((16, 32), (16, 32, 64), (32, 64, 128), (4, 8), (2, 3))
    return [Tiles(*size) for size in sizes if size[0] * size[1] * 8 <= 8192]


def ways(family: Rounded, x: Tensor, members: int, sizes: list[Tiles]) -> Iterator[tuple[str, Work]]:
    """Every way to give members' outputs of x `[N, D]`, or `[K, N, D]`."""
    weights = block(family, range(members), device=x.device)
    own = x if x.ndim == 3 else x.expand(members, *x.shape)
    yield "one model", lambda: linear(own[0], weights[0])
    yield "K linear", lambda: [linear(rows, weight) for rows, weight in zip(own, weights, strict=True)]
    yield "bmm", lambda: torch.bmm(own, weights.transpose(1, 2))
    for form in (planes, drawn):
        operand: Operand = form(family, range(members))
        want = reference(operand, x.float())
        for size in sizes:
            name = f"{form.__name__} {size.rows}x{size.outputs}x{size.inputs} w{size.warps} s{size.stages}"
            if _fits(operand, x, size, want):
                yield name, lambda operand=operand, size=size: product(operand, x, tiles=size)  # type: ignore[misc]
            else:
                typer.echo(f"{name} is left out: it does not fit into this GPU", err=True)


def measure(
    shape: tuple[int, int],
    rows: int,
    shared: bool,
    members: int,
    repeats: int,
    sizes: list[Tiles],
    device: torch.device,
) -> list[Row]:
    """Times of every way for one layer and one batch."""
    draw = torch.Generator(device).manual_seed(0)
    base = torch.randn(shape, generator=draw, device=device).to(torch.bfloat16)
    family = Rounded(Shared(base), "fc", number_format("int4"), "channel", layout(shape), Key(0), "stratified")
    batch = (rows, shape[1]) if shared else (members, rows, shape[1])
    x = torch.randn(batch, generator=draw, device=device).to(torch.bfloat16)
    times = interleaved(dict(ways(family, x, members, sizes)), repeats=repeats, device=device)
    one, about_inputs = times["one model"].median, "shared" if shared else "own"
    return [
        Row(
            f"{shape[0]}x{shape[1]}",
            rows,
            about_inputs,
            way,
            1e3 * t.median,
            1e3 * t.best,
            1e3 * t.worst,
            t.median / one,
        )
        for way, t in times.items()
    ]


def table(rows: list[Row]) -> Table:
    """One line for each way, the quickest first within a layer and a batch."""
    out = Table("layer", "rows", "inputs", "way", "ms", "from..to", "x one model")
    for _, group in itertools.groupby(rows, key=lambda row: (row.shape, row.rows, row.inputs)):
        for row in sorted(group, key=lambda row: row.milliseconds):
            span = f"{row.best:.3f}..{row.worst:.3f}"
            out.add_row(
                row.shape, str(row.rows), row.inputs, row.name, f"{row.milliseconds:.3f}", span, f"{row.models:.2f}"
            )
        out.add_section()
    return out


def main(
    members: Annotated[int, typer.Option(help="Members K.")] = 8,
    repeats: Annotated[int, typer.Option(help="Turns that count.")] = 20,
    quick: Annotated[bool, typer.Option("--quick", help="The default tiles alone.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Measure a linear layer for K members on this machine's GPU."""
    if (reason := no_gpu()) is not None:
        typer.echo(reason)
        return
    machine = {**about(), "date": datetime.now(UTC).isoformat(timespec="seconds")}
    cases = itertools.product(SHAPES, ROWS, (True, False))
    rows = [
        row
        for shape, count, shared in cases
        for row in measure(shape, count, shared, members, repeats, tiles(quick), torch.device("cuda"))
    ]
    if as_json:
        typer.echo(json.dumps({"machine": machine, "members": members, "rows": [*map(asdict, rows)]}))
        return
    typer.echo("  ".join(f"{name} {value}" for name, value in machine.items()))
    typer.echo(f"{members} members, int4, stratified, bfloat16; median of {repeats}")
    Console().print(table(rows))


def _fits(operand: Operand, x: Tensor, size: Tiles, want: Tensor) -> bool:
    """Whether tiles of this size run; AssertionError where their product is wrong."""
    try:
        got = product(operand, x, tiles=size)
    except Exception as error:  # Triton's errors have no common class; what is no lack of room is passed on
        if "out of resource" in str(error):
            return False
        raise
    error = float((got.float() - want).abs().max() / want.abs().max())
    assert error <= BOUND, f"{size}: the product is wrong by {error:.3g} of its largest value"
    return True


if __name__ == "__main__":
    typer.run(main)
