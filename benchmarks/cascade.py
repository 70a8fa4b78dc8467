"""Forwards of a cascade at equal NLL and at equal accuracy: the public ResNet-20 at INT-4 behind eight views.

    python -m benchmarks.cascade [--folder out/cascade] [--json FILE]

Reads the members that `pluria run experiments/cascade/recipe.yaml --out out/cascade` has kept; without them it says so.
Forwards are counted, not timed: fitted on 5,000 CIFAR-10 test images, counted on 5,000 others.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from rich.console import Console
from rich.table import Table

from benchmarks.machine import machine
from benchmarks.sides import Ratio


def main(
    folder: Annotated[Path, typer.Option(help="The run that kept the members.")] = Path("out/cascade"),
    out: Annotated[Path | None, typer.Option("--json", help="Keep the figures in this file.")] = None,
) -> None:
    """Print the forwards that a cascade asks for where the first k views are asked of every image."""
    make = "pluria run experiments/cascade/recipe.yaml --out out/cascade"
    if not (folder / "predictions" / "resnet20").is_dir():
        return print(
            f"cascade: no members in {folder}; make them by `{make}` (the data: experiments/cascade/README.md)"
        )
    sys.path.insert(0, "")
    from experiments.cascade.members import NETWORKS, kept, targets
    from experiments.cascade.run import equal

    torch.set_num_threads(1)
    try:
        held, y = kept(folder, "int-4-gptq-8-views", NETWORKS[:1], 8), targets()
    except FileNotFoundError as error:
        return print(f"cascade: {folder} is not complete, {error}; `{make}` goes on with it")
    rows = [{"task": task, **row} for task in ("nll", "error") for row in equal(held, range(8), y, task)]
    ratios = [asdict(_ratio(row)) for row in rows if row.get("cascade") is not None]
    found = {"machine": machine(), "ratios": ratios, "rows": rows}
    Console().print(table(found["rows"]))
    if out is not None:
        out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    return None


def _ratio(row: dict[str, Any]) -> Ratio:
    share = row["cascade"]["forwards"] / row["k"]
    what = f"ResNet-20: cascade ÷ {row['k']} views of every image, forwards at equal {row['task']}"
    return Ratio(what, share, share, share)


def table(rows: list[dict[str, Any]]) -> Table:
    made = Table("at equal", "views asked of all", "it", "the cascade's", "difference, 95 %", "forwards", "÷")
    for row in rows:
        task, cascade = row["task"], row.get("cascade")
        cells = [task, str(row["k"]), f"{row[task]:.4f}"]
        if cascade is not None:
            low, high = cascade["gap"][1:]
            forwards = cascade["forwards"]
            cells += [
                f"{cascade[task]:.4f}",
                f"{low:+.4f} to {high:+.4f}",
                f"{forwards:.2f}",
                f"{forwards / row['k']:.2f}",
            ]
        made.add_row(*cells)
    return made


if __name__ == "__main__":
    typer.run(main)
