"""The tables of README.md from stored figures.

python experiments/quantiles/tables.py      reads flusight.json and concrete.json beside it
"""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

Found = Mapping[str, Any]


def setting() -> dict[str, str]:
    """When and on what something was measured."""
    return {"date": datetime.now(UTC).date().isoformat(), "machine": platform.machine(), "torch": torch.__version__}


def flusight(found: Found) -> str:
    """Pools of forecasts of influenza, against the median."""
    # Levels .01 .025 .05 .1 .15 .2 .25: the second pair covers 95 %, the seventh 50 %.
    lines = ["| pool | WIS | against the median | interval | dispersion | under | over | cover 50 % | 95 % | cross |"]
    lines.append("| --- | " + " | ".join(["---:"] * 9) + " |")
    for name, one in found["pools"].items():
        parts = " | ".join(f"{part:.1f}" for part in one["parts"])
        lines.append(
            f"| {name} | {one['wis']:.2f} | {_gap(name, 'median', one['difference'], 2)} | {parts} | "
            f"{one['covered'][6]:.0%} | {one['covered'][1]:.0%} | {one['crossing']:.1%} |"
        )
    return "\n".join(lines)


def concrete(found: Found) -> str:
    """Pools of quantile regressions of concrete, against the mean."""
    lines = ["| pool | WIS | against the mean | interval | cover 50 % | 90 % | cross |"]
    lines.append("| --- | " + " | ".join(["---:"] * 6) + " |")
    for name, one in found["pools"].items():
        lines.append(
            f"| {name} | {one['wis']:.3f} | {_gap(name, 'mean', one['difference'], 3)} | "
            f"{one['covered'][2]:.0%} | {one['covered'][0]:.0%} | {one['crossing']:.1%} |"
        )
    return "\n".join(lines)


def _gap(name: str, control: str, difference: list[float], digits: int) -> str:
    mean, low, high = (f"{value:+.{digits}f}" for value in difference)
    return "– | –" if name == control else f"{mean} | [{low}, {high}]"


if __name__ == "__main__":
    here = Path(__file__).parent
    for name, table in (("flusight", flusight), ("concrete", concrete)):
        print(table(json.loads((here / f"{name}.json").read_text(encoding="utf-8"))), end="\n\n")
