"""The tables of README.md from stored figures.

python experiments/soups/tables.py [experiments/soups/figures.json]
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

PARTS = {
    "local": "best member",
    "star": "best member",
    "tasks": "task arithmetic",
    "sparse": "one step: mean copy",
}
"""Each part and the arm that others are compared with."""


def tables(found: Mapping[str, Any]) -> str:
    """All tables, in the order of README.md."""
    made = [f"### {part}\n\n{table(found[part], control)}" for part, control in PARTS.items()]
    ranks = spread(found["rank correlation"], 2)
    return "\n\n".join([*made, f"Rank correlation of the NLL of soups and of mean outputs: {ranks}."])


def table(arms: Mapping[str, Sequence[Mapping[str, float]]], control: str) -> str:
    """Every arm, lowest NLL after temperature first: means over seeds, and paired differences with standard errors."""
    extra = next((key for key in ("density", "scale") if any(key in own[0] for own in arms.values())), None)
    heads = ["", "NLL", "NLL, tempered", "against the control", "seeds better", "error", *([extra] if extra else [])]
    lines = ["| " + " | ".join(heads) + " |", "| --- |" + " ---: |" * (len(heads) - 1)]
    for name in sorted(arms, key=lambda arm: fmean(one["tempered"] for one in arms[arm])):
        own = arms[name]
        losses, mine = [one["tempered"] for one in own], name == control
        gaps = [a - b["tempered"] for a, b in zip(losses, arms[control], strict=True)]
        apart = "–" if mine else f"{fmean(gaps):+.3f} ± {stdev(gaps) / len(gaps) ** 0.5:.3f}"
        better = "–" if mine else f"{sum(gap < 0 for gap in gaps)} of {len(gaps)}"
        cells = [name, f"{fmean(one['nll'] for one in own):.3f}", spread(losses, 3), apart, better]
        cells += [f"{fmean(one['error'] for one in own):.2%}"]
        if extra:
            cells += [f"{fmean(one[extra] for one in own):.3f}" if extra in own[0] else "–"]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def spread(values: Sequence[float], digits: int) -> str:
    """Mean ± standard deviation over seeds."""
    return f"{fmean(values):.{digits}f} ± {stdev(values):.{digits}f}"


if __name__ == "__main__":
    path = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).with_name("figures.json")
    print(tables(json.loads(path.read_text(encoding="utf-8"))))
