"""Where one member's time goes: the share of each operation, for the network itself and for a back end.

python -m benchmarks.profile NETWORK [--rows N] [--backend NAME]
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

import torch
import typer
from rich.console import Console
from rich.table import Table

from benchmarks.networks import case
from benchmarks.prediction import one_pass, ours
from benchmarks.sides import keep
from pluria.predict import Choice
from pluria.sample import low_precision

SHOWN = 8


def shares(work: Callable[[], object]) -> tuple[float, list[tuple[str, float]]]:
    """Seconds of the second of two runs, and the share of each operation by itself, largest first."""
    work()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as found:
        work()
    times = {event.key: event.self_cpu_time_total for event in found.key_averages()}
    total = sum(times.values())
    ordered = sorted(times.items(), key=lambda pair: -pair[1])
    return total / 1e6, [(name, value / total) for name, value in ordered[:SHOWN]]


def main(
    name: Annotated[str, typer.Argument(metavar="NETWORK", help="resnet20, vit, bert or long.")],
    rows: Annotated[int, typer.Option(help="Images or sequences.")] = 32,
    backend: Annotated[str, typer.Option(help="A back end.")] = "bfloat16",
) -> None:
    """Profile one member beside the network itself."""
    found = case(name, rows)
    member = low_precision(found.model, format="int4", members=1)
    ways = {"float32": one_pass(found), backend: ours(found, member, Choice(backend))}  # type: ignore[arg-type]
    profile = {}
    for way, work in ways.items():
        seconds, table = shares(work)
        profile[way] = {"seconds": seconds, "shares": dict(table)}
        shown = Table(f"{way}: {seconds:.2f} s", "share")
        for operation, share in table:
            shown.add_row(operation, f"{share:.1%}")
        Console(width=80).print(shown)
    keep(f"profile-{name}-{backend}", [], case=found.what, profile=profile)


if __name__ == "__main__":
    typer.run(main)
