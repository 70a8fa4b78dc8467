"""All results in one table: the ratios of every JSON file.

python -m benchmarks.table [FILE ...]
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from benchmarks.sides import RESULTS


def rows(files: list[Path]) -> list[tuple[str, ...]]:
    """Benchmark, what, ratio, spread, bar, and where and when it was measured."""
    found = []
    for file in files:
        content: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        about = content.get("machine", {})
        where = f"{about.get('cores', '?')} cores, {str(about.get('date', '?'))[:10]}"
        for one in content.get("ratios", []):
            bar = "" if one.get("bar") is None else f"{one['bar']:g}"
            spread = f"{one['low']:.3g} to {one['high']:.3g}"
            found.append((_name(file), one["what"], f"{one['ratio']:.3g}", spread, bar, where))
    return found


def main(
    files: Annotated[list[Path], typer.Argument(help="Results; all that are kept if none is given.")] = [],  # noqa: B006
) -> None:
    """Print the ratios of all results."""
    table = Table("benchmark", "ratio of", "median", "spread", "bar", "measured on")
    for row in rows(files or sorted(RESULTS.rglob("*.json"))):
        table.add_row(*row)
    Console(width=160).print(table)


def _name(file: Path) -> str:
    """With the folder, where results of another machine lie in one of their own."""
    found = file.with_suffix("")
    return str(found.relative_to(RESULTS)) if found.is_relative_to(RESULTS) else found.name


if __name__ == "__main__":
    typer.run(main)
