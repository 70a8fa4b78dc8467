"""All results in one table: the ratios of every JSON file; of file sizes and cascades, what is a ratio in their rows.

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
        for one in [*content.get("ratios", []), *filter(None, map(in_row, content.get("rows", [])))]:
            bar = "" if one.get("bar") is None else f"{one['bar']:g}"
            spread = f"{one['low']:.3g} to {one['high']:.3g}" if "low" in one else ""
            found.append((file.stem, one["what"], f"{one['ratio']:.3g}", spread, bar, where))
    return found


def in_row(row: dict[str, Any]) -> dict[str, Any] | None:
    """The ratio in a row of sizes (to the float32 checkpoint) or of cascades (forwards, to those of all K members)."""
    if "checkpoints" in row:
        kind = ", ".join(str(row[name]) for name in ("network", "form", "format") if name in row)
        return {"what": f"{kind}, K = {row.get('members')}: file / checkpoint", "ratio": row["checkpoints"]}
    if isinstance(cascade := row.get("cascade"), dict) and "forwards" in row:
        what = f"{row.get('task')}: forwards of the cascade / of K = {row.get('k')}"
        return {"what": what, "ratio": cascade["forwards"] / row["forwards"]}
    return None


def main(
    files: Annotated[list[Path], typer.Argument(help="Results; all that are kept if none is given.")] = [],  # noqa: B006
) -> None:
    """Print the ratios of all results."""
    table = Table("benchmark", "ratio of", "median", "spread", "bar", "measured on")
    for row in rows(files or sorted(RESULTS.glob("*.json"))):
        table.add_row(*row)
    Console(width=160).print(table)


if __name__ == "__main__":
    typer.run(main)
