"""pluria plan: what an ensemble of a Hugging Face folder takes in memory, before anything is loaded."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pluria.cli.options import Json, mistakes, show

if TYPE_CHECKING:
    from pluria.language.plan import Plan


def plan(
    folder: Annotated[Path, typer.Argument(help="A Hugging Face folder; only its headers are read.")],
    members: Annotated[int, typer.Option(help="How many.")] = 8,
    format: Annotated[str, typer.Option(help="Number system of members that are kept as codes.")] = "int5",
    kept: Annotated[str, typer.Option(help="rounded (when asked for) or codes (compensated members).")] = "rounded",
    context: Annotated[int, typer.Option(help="Tokens of a text.")] = 2048,
    batch: Annotated[int, typer.Option(help="Texts at a time.")] = 1,
    held: Annotated[bool, typer.Option("--held", help="The base is held, not memory-mapped from its files.")] = False,
    memory: Annotated[float | None, typer.Option(help="GB that may be taken; by default what is free.")] = None,
    json: Json = False,
) -> None:
    """Say what members of a network take in memory, and how many fit."""
    from pluria.language.plan import memory_plan, refuse_over

    with mistakes():
        if memory is not None and not memory > 0:
            raise ValueError(f"--memory is a positive number of GB; got {memory}")
        options: dict[str, Any] = {"format": format, "kept": kept, "context": context, "batch": batch}
        available = None if memory is None else int(memory * 1e9)
        made = memory_plan(folder, members=members, mapped=not held, available=available, **options)
    if json:
        show({**vars(made), "total": made.total, "fits": made.fits})
    else:
        _table(made)
    refuse_over(made)


def _table(made: Plan) -> None:
    from rich.console import Console
    from rich.table import Table

    from pluria.core.sizes import readable

    count = made.members
    rows = {
        "base": made.base,
        "working copy": made.working_copy,
        f"{count} members": count * made.codes,
        f"{count} caches": count * made.caches,
        "logits": made.logits,
        "one tensor at work": made.tensor,
        "in all": made.total,
    }
    table = Table("what", "memory")
    for what, size in rows.items():
        table.add_row(what, "0" if size == 0 else readable(size))
    console = Console(markup=False)
    console.print(f"{made.parameters:,} parameters", highlight=False)
    console.print(table)
    if made.available is not None:
        console.print(f"{readable(made.available)} may be taken", highlight=False)


COMMANDS = {"plan": plan}
