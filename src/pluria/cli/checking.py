"""pluria check: whether models can be merged, and with data what merging them would give."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pluria.cli.ensembles import Arguments, DataArguments
from pluria.cli.options import Json, mistakes, pairs, show
from pluria.cli.rows import rows_for

if TYPE_CHECKING:
    from rich.console import Console

    from pluria.check import Between, Check, Measured


def check(
    models: Annotated[list[Path], typer.Argument(help="Two checkpoints or more: files, or Hugging Face folders.")],
    base: Annotated[Path | None, typer.Option(help="The model they were fine-tuned from.")] = None,
    model: Annotated[
        str | None, typer.Option(help="package.module:Class (runs that code), a zoo name, or a Hugging Face folder.")
    ] = None,
    argument: Arguments = [],  # noqa: B006
    data: Annotated[str | None, typer.Option(help="A .npz file, or a reader's name with --data-argument.")] = None,
    data_argument: DataArguments = [],  # noqa: B006
    heads: Annotated[
        list[str], typer.Option(help="Name patterns of tensors that stay each model's own in a shared trunk.")
    ] = [],  # noqa: B006
    rows: Annotated[int, typer.Option(help="Rows of the data that are run at most.")] = 1000,
    batch: Annotated[int, typer.Option(help="Examples at a time.")] = 250,
    trust: Annotated[bool, typer.Option("--trust", help="Run the code that comes with a Hugging Face folder.")] = False,
    json: Json = False,
) -> None:
    """Say whether models can be merged: names, shapes, distances, signs; with --model and --data also losses.

    Example: pluria check a.safetensors b.safetensors --model mlp --argument inputs=64 --data test.npz
    """
    from dataclasses import asdict

    from pluria.check import check as checked
    from pluria.recipe.parts import Network
    from pluria.recipe.resolve import built

    with mistakes():
        if (model is None) != (data is None):
            raise ValueError("losses need both --model and --data")
        ready: dict[str, Any] = {}
        if model is not None and data is not None:
            spec = Network(model=model, arguments=pairs(argument, "--argument"))
            network = built(spec, trust=trust)
            held = rows_for(network, data, pairs(data_argument, "--data-argument"), rows)
            ready = {"network": network, "batches": held.batches(batch), "heads": heads}
        found = checked(models, base=base, **ready)
    if json:
        return show(asdict(found))
    _told(found)


def _told(found: Check) -> None:
    from rich.console import Console

    console = Console(markup=False, highlight=False)
    for line in (*found.problems, *found.notes):
        console.print(line, soft_wrap=True)
    if found.between is not None:
        _apart(found.between, console)
    if found.measured is not None:
        _losses(found.models, found.measured, console)
    console.print(found.advice, soft_wrap=True)


def _apart(found: Between, console: Console) -> None:
    from rich.table import Table

    pairs_of = [value for i, row in enumerate(found.distance) for value in row[i + 1 :]]
    table = Table("between the models", "")
    table.add_row("squared distance (0 equal, 1 orthogonal)", _range(pairs_of))
    table.add_row(f"spread of the mean (1 equal, {found.unrelated:.2f} unrelated)", f"{found.spread:.3f}")
    if found.cosine is not None and found.length is not None:
        cosines = [value for i, row in enumerate(found.cosine) for value in row[i + 1 :]]
        table.add_row("length of task vectors, in that of the base", _range(found.length))
        table.add_row("cosine of task vectors", _range(cosines))
        table.add_row("places moved to different sides", f"{found.conflicts:.1%}")
    console.print(table)
    lowest = sorted(found.tensors, key=lambda row: row.spread)[:3]
    listed = ", ".join(f"{row.name} {row.spread:.2f}" for row in lowest)
    console.print(f"least spread kept: {listed}", soft_wrap=True)


def _losses(models: tuple[str, ...], found: Measured, console: Console) -> None:
    from rich.table import Table

    table = Table("from the first model to", "its loss", "barrier", "aligned", "distance gained")
    aligned, gained = found.aligned_barriers or (None,) * len(models), found.gained or (None,) * len(models)
    for name, loss, *rest in zip(models[1:], found.ends[1:], found.barriers, aligned, gained, strict=False):
        table.add_row(Path(name).name, f"{loss:.4f}", *("" if value is None else f"{value:.4f}" for value in rest))
    console.print(table)
    worst = sorted(found.layers, key=lambda layer: -max(layer[1:]))[:3]
    console.print("highest barriers of one layer alone: " + ", ".join(f"{n} {max(h):.4f}" for n, *h in worst),
                  soft_wrap=True)  # fmt: skip
    terms = "curvature", "disagreement", "probability"
    table = Table("answered by", "forwards", "heads", "loss", "soup less this", "predicted", *terms)
    for row in found.choices:
        parts = () if row.terms is None else (row.terms.curvature, row.terms.disagreement, row.terms.extra)
        gaps = [f"{row.gap:+.4f}", "" if row.predicted is None else f"{row.predicted:+.4f}"]
        gaps += [f"{part:+.4f}" for part in (parts if "probability" in row.what else parts[:2])]
        table.add_row(row.what, str(row.forwards), str(row.heads or ""), f"{row.loss:.4f}", *gaps)
    console.print(table)
    if found.unaligned is not None:
        console.print(f"not aligned: {found.unaligned}", soft_wrap=True)
    if found.refreshed:
        console.print("batch-norm statistics were refreshed on the lines, and not in the last table", soft_wrap=True)


def _range(values: list[float] | tuple[float, ...]) -> str:
    low, high = min(values), max(values)
    return f"{low:.4f}" if low == high else f"{low:.4f} to {high:.4f}"


COMMANDS = {"check": check}
