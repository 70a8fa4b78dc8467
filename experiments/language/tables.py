"""The tables of README.md and figures.md from the stored figures; README.md's stand between its two marks.

python experiments/language/tables.py
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
MARKS = "<!-- tables: python experiments/language/tables.py -->", "<!-- end of tables -->"
FEW, ALL = (1, 4, 16), (1, 2, 4, 8, 16)
Row = dict[str, Any]


@dataclass(frozen=True)
class Quantity:
    """What a table shows; `short` ones are in README.md, too."""

    title: str
    of: Callable[[Row], float | None]
    short: bool = False


QUANTITIES = (
    Quantity("Stories, nats for each token", lambda row: float(row["stories"]["nats"]), True),
    Quantity("Stories, nats after temperature", lambda row: float(row["stories"]["scaled_nats"]), True),
    Quantity("Stories, expected calibration error", lambda row: float(row["stories"]["ece"])),
    Quantity("Stories, expected calibration error after temperature", lambda row: float(row["stories"]["scaled_ece"])),
    Quantity("Shakespeare, nats for each token", lambda row: float(row["shakespeare"]["nats"]), True),
    Quantity("Shakespeare, nats after temperature", lambda row: float(row["shakespeare"]["scaled_nats"]), True),
    Quantity("Shakespeare, expected calibration error", lambda row: float(row["shakespeare"]["ece"])),
    Quantity("Foreign pieces of 16 tokens, AUROC of entropy", lambda row: float(row["auroc_pieces"]["entropy"]), True),
    Quantity(
        "Foreign pieces of 16 tokens, AUROC of mutual information",
        lambda row: row["auroc_pieces"].get("mutual information"),
        True,
    ),
    Quantity("Foreign pieces of 16 tokens, AUROC of disagreement", lambda row: row["auroc_pieces"].get("disagreement")),
)


def table(rows: Sequence[Row], quantity: Quantity, sizes: Sequence[int]) -> str:
    """A line for each way and K, a column for each format; ± over seeds."""
    cells: dict[tuple[str, int], dict[str, list[float]]] = {}
    for row in rows:
        format, _, way = row["name"].partition(" ")
        value = quantity.of(row)
        if format.startswith("int") and value is not None and row["members"] in sizes:
            cells.setdefault((way, row["members"]), {}).setdefault(format, []).append(value)
    formats = sorted({format for by_format in cells.values() for format in by_format})
    full = next(quantity.of(row) for row in rows if row["name"] == "full precision")
    known = "" if full is None else f" Full precision: **{full:.3f}**."
    lines = [f"{quantity.title}.{known}", ""]
    lines += [f"| arm | K | {' | '.join(one.upper().replace('T', 'T-') for one in formats)} |"]
    lines += ["|---|" + "---|" * (1 + len(formats))]
    for (way, size), by_format in sorted(cells.items(), key=lambda item: _order(*item[0])):
        shown = " | ".join(cell(by_format.get(format, [])) for format in formats)
        lines.append(f"| {way} | {size} | {shown} |")
    return "\n".join(lines)


def _order(way: str, size: int) -> tuple[Any, ...]:
    kind, _, scale = way.partition(", ")
    kinds = ("nearest", "nearest with feedback", "stochastic", "compensated")
    return kinds.index(kind), ("", "groups of 16", "groups of 4", "block by block").index(scale), size


def cell(values: Sequence[float]) -> str:
    """Mean and spread over seeds; the mean alone where there is one."""
    if not values:
        return ""
    spread = f" ± {statistics.stdev(values):.3f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.3f}{spread}"


def errors(rows: Sequence[Row]) -> str:
    """How well the gaps to full precision are known over windows, by format."""
    lines = []
    for format in sorted({row["name"].partition(" ")[0] for row in rows} - {"full"}):
        own = [row for row in rows if row["name"].startswith(format)]
        found = [max(row[kind]["nats_gap_error"] for row in own) for kind in ("stories", "shakespeare")]
        lines.append(f"{format.upper().replace('T', 'T-')} {found[0]:.3f} and {found[1]:.3f}")
    return (
        "Standard error over windows of the gap to full precision in nats, the largest of all arms of a format, for "
        f"stories and Shakespeare: {'; '.join(lines)}."
    )


def page(stored: dict[str, Any], *, short: bool) -> str:
    """All tables, or the short ones."""
    rows, about = stored["rows"], stored["about"]
    machine = ", ".join(f"{name} {value}" for name, value in about["machine"].items())
    tables = [table(rows, one, FEW if short else ALL) for one in QUANTITIES if one.short or not short]
    return "\n\n".join([*tables, errors(rows), f"CPU time {about['seconds']} s; {machine}."])


def main() -> None:
    """Write both."""
    stored = json.loads((HERE / "figures.json").read_text(encoding="utf-8"))
    readme = (HERE / "README.md").read_text(encoding="utf-8")
    before, rest = readme.split(MARKS[0])
    after = rest.split(MARKS[1])[1]
    short = f"{MARKS[0]}\n\n{page(stored, short=True)}\n\n{MARKS[1]}"
    (HERE / "README.md").write_text(before + short + after, encoding="utf-8")
    whole = f"# All figures of the language model\n\n{page(stored, short=False)}\n"
    (HERE / "figures.md").write_text(whole, encoding="utf-8")


if __name__ == "__main__":
    main()
