"""The tables of README.md from stored figures.

python experiments/rebasin/tables.py [experiments/rebasin/figures.json]
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

Row = Mapping[str, Any]
BARRIERS = "as they are", "matched by weights", "matched by activations"


def tables(rows: Sequence[Row]) -> str:
    """All tables, in the order of README.md."""
    return "\n\n".join([midpoints(rows, "nll", 3), midpoints(rows, "error", 3), lines(rows)])


def midpoints(rows: Sequence[Row], figure: str, digits: int) -> str:
    """A figure of every way for every kind of network, mean over seeds with their standard deviation."""
    kinds = kinds_of(rows)
    head = ["| " + " | ".join([figure.upper() if figure == "nll" else figure, *kinds]) + " |"]
    head.append("| --- |" + " ---: |" * len(kinds))
    for way in dict.fromkeys(row["way"] for row in rows):
        cells = [spread([r[figure] for r in rows if (r["kind"], r["way"]) == (kind, way)], digits) for kind in kinds]
        head.append(f"| {way} | " + " | ".join(cells) + " |")
    return "\n".join(head)


def lines(rows: Sequence[Row]) -> str:
    """Height of the barrier, squared distance and the least spread that a layer keeps, for each kind and way."""
    head = ["| networks | way | barrier | distance | least spread |", "| --- | --- | ---: | ---: | ---: |"]
    for kind in kinds_of(rows):
        for way in BARRIERS:
            own = [row for row in rows if (row["kind"], row["way"]) == (kind, way)]
            cells = [spread([row[name] for row in own if name in row], 3) for name in ("barrier", "distance", "ratio")]
            head.append(f"| {kind} | {way} | " + " | ".join(cells) + " |")
    return "\n".join(head)


def kinds_of(rows: Sequence[Row]) -> list[str]:
    """Kinds of networks in the order of the figures."""
    return list(dict.fromkeys(row["kind"] for row in rows))


def spread(values: Sequence[float], digits: int) -> str:
    """Mean and standard deviation, the mean alone of one value, nothing of none."""
    if not values:
        return ""
    mean = f"{fmean(values):.{digits}f}"
    return mean if len(values) == 1 else f"{mean} ± {stdev(values):.{digits}f}"


if __name__ == "__main__":
    given = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).with_name("figures.json")
    print(tables(json.loads(given.read_text(encoding="utf-8"))))
