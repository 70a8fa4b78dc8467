"""The table of a run: every arm and every control, for a terminal, as plain text, Markdown or CSV."""

from __future__ import annotations

import csv
import io
from typing import TYPE_CHECKING

from pluria.recipe.pools import CHOICE
from pluria.report.records import COLUMNS, Column, Figures, Record, best, by_operations, equal_bits, records, verdict
from pluria.report.sheet import as_markdown, quoted
from pluria.report.sheets import sheets

if TYPE_CHECKING:
    from rich.table import Table
    from rich.text import Text

WITHOUT = "The recipe switched the controls off, so cheaper things that could do the same were not tried."
LEAST = 24
"""A name is given at least so many columns before it wraps."""
STYLES = {"better": "green", "worse": "red", "same": ""}


def table(figures: Figures, *, width: int | None = None) -> Table:
    """One table of all arms, controls first; the less important columns are left out on a narrow terminal.

    width   columns of the terminal; by default those of the terminal at hand. `plain` gives text without colour
    """
    from rich import box
    from rich.console import Console
    from rich.table import Table

    rows = records(figures)
    columns = _fitting(rows, Console().width if width is None else width)
    made = Table(
        box=box.SIMPLE_HEAD,
        caption=f"{legend(figures)} {_marks(figures)}",
        caption_justify="left",
        padding=(0, 0, 0, 1),
    )
    made.add_column("", width=1)
    made.add_column("", min_width=LEAST)
    for column in columns:
        made.add_column(f"{column.group}\n{column.head}", justify="right", no_wrap=True)
    for title, group in _groups(rows):
        made.add_section()
        made.add_row("", title, style="dim italic")
        for record in group:
            made.add_row(*_cells(record, columns, figures))
    return made


def plain(figures: Figures, *, width: int = 120) -> str:
    """The same table as text without colour or control characters, at most `width` columns wide."""
    from rich.console import Console

    stream = io.StringIO()
    console = Console(file=stream, width=width, color_system=None, force_terminal=False, legacy_windows=False)
    console.print(table(figures, width=width))
    return "\n".join(line.rstrip() for line in stream.getvalue().splitlines()) + "\n"


def markdown(figures: Figures) -> str:
    """The whole table in Markdown, with every column, and a section for each further table the run has."""
    rows = records(figures)
    shown = best(figures)
    lines = [["arm", "role", *(column.title for column in COLUMNS)], ["---", "---", *["---:"] * len(COLUMNS)]]
    for record in rows:
        cells = [column.text(record) for column in COLUMNS]
        if record["name"] in shown:
            cells = [f"**{text}**" if c.key == "nll_scaled" else text for c, text in zip(COLUMNS, cells, strict=True)]
        lines.append([quoted(record["name"]), record["role"], *cells])
    table = "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"
    return "\n".join([table, *map(as_markdown, sheets(figures))])


def comma_separated(figures: Figures) -> str:
    """Every number of the table in full precision as CSV, one line for each arm; empty where there is none."""
    rows, stream = records(figures), io.StringIO()
    names = list(dict.fromkeys(name for row in rows for name in row))
    writer = csv.DictWriter(stream, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return stream.getvalue()


def legend(figures: Figures) -> str:
    """What is marked and whether anything is, and which rows the figures come from."""
    rows, level = figures["rows"], figures["arms"][0]["difference"]["nll_scaled"]["level"]
    budget = "operations" if by_operations(figures) else "forwards"
    told = (
        f"★ beats full precision with temperature beyond the {level:.0%} paired interval, and nothing with as many "
        f"{budget} or fewer is surely better."
        if best(figures)
        else f"No arm beats full precision with temperature beyond the {level:.0%} paired interval."
    )
    asked = any(arm["pool"] not in CHOICE for arm in figures["arms"])
    named = "the pool that an arm names, or else " if asked else ""
    twice = rows.get("twice", 0)
    others = f"{rows['figures']} rows, {twice} of them calibration rows too" if twice else f"{rows['figures']} others"
    # Runs that were kept before there was a choice have no word on it.
    off = "" if figures["recipe"].get("controls", True) else f" {WITHOUT}"
    return (
        f"{told} T, a temperature behind {named}the better of two pools (mean of probabilities or of logits), is "
        f"fitted on {rows['calibration']} calibration rows; every figure comes from {others}.{off}"
    )


def _marks(figures: Figures) -> str:
    """What the signs beside names mean."""
    equal = " † is the best single model within an ensemble's bits." if equal_bits(figures) else ""
    return f"▸ is the arm chosen on the calibration rows.{equal}"


def _fitting(rows: list[Record], width: int) -> list[Column]:
    """The columns of lowest rank that fit beside the names, in their order."""
    from rich.cells import cell_len

    longest = max(cell_len(row["name"]) for row in rows) + 2
    left, chosen = width - 4 - min(longest, max(LEAST, width // 4)), set()
    for column in sorted(COLUMNS, key=lambda column: column.rank):
        cells = [column.group, column.head, *(column.text(row) for row in rows)]
        left -= 2 + max(map(cell_len, cells))
        if left < 0:
            break
        chosen.add(column.key)
    return [column for column in COLUMNS if column.key in chosen]


def _groups(rows: list[Record]) -> list[tuple[str, list[Record]]]:
    controls = [row for row in rows if row["role"] == "control"]
    drawn = [row for row in rows if row["role"] != "control"]
    return [(title, group) for title, group in (("controls", controls), ("drawn", drawn)) if group]


def _cells(record: Record, columns: list[Column], figures: Figures) -> list[Text]:
    """Text objects, so that brackets in a name are never read as markup."""
    from rich.text import Text

    main = record["role"] == "main"
    name = record["name"] + (" †" if record["name"] in equal_bits(figures) else "")
    cells = [Text("▸" if main else ""), Text(name, style="bold" if main else "")]
    for column in columns:
        text, style = column.text(record), ""
        if column.key == "nll_scaled" and record["name"] in best(figures):
            text, style = f"★ {text}", "bold"
        if column.key == "difference" and record["difference"] is not None:
            style = STYLES[verdict({"low": record["difference_low"], "high": record["difference_high"]})]
        cells.append(Text(text, style=style))
    return cells
