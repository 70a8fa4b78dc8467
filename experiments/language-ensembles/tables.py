"""The table of README.md from the stored figures.

python experiments/language-ensembles/tables.py
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any


def page(rows: Sequence[dict[str, Any]]) -> str:
    """One line for each combination: the mean over seeds and its standard deviation."""
    lines = ["| tokens of | networks | pool | bits per byte | after temperature |", "|---|---|---|---|---|"]
    for key in dict.fromkeys((row["tokenizer"], row["networks"], row["rule"]) for row in rows):
        same = [row for row in rows if (row["tokenizer"], row["networks"], row["rule"]) == key]
        cells = (cell([row[name] for row in same]) for name in ("bits", "scaled"))
        lines.append(f"| {' | '.join([*key, *cells])} |")
    return "\n".join(lines)


def cell(values: Sequence[float | None]) -> str:
    """Mean and spread; infinite where a seed is."""
    known = [value for value in values if value is not None]
    if len(known) < len(values):
        return "infinite"
    return f"{statistics.mean(known):.3f} ± {statistics.stdev(known) if len(known) > 1 else 0:.3f}"


if __name__ == "__main__":
    stored = json.loads(Path(__file__).with_name("figures.json").read_text(encoding="utf-8"))
    print(page(stored["rows"]))
