"""The table of README.md from stored figures.

python experiments/fast-ensembling/tables.py experiments/fast-ensembling/cifar10-frn-30.json
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from statistics import fmean
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from seeds import spread

PAIRS = (
    ("deep ensemble × 2", "single"),
    ("deep ensemble × 3", "single"),
    ("SSE × 5", "single"),
    ("cyclical SGHMC × 10", "single"),
    ("FGE × 3", "single"),
    ("SWA", "single"),
    ("SWAG × 8", "SWA"),
    ("IVON × 8", "single"),
    ("IVON × 8", "IVON, its mean"),
    ("IVON, its mean, INT-5 × 8", "IVON × 8"),
    ("single, INT-5 × 8", "single"),
    ("SWA, INT-5 × 8", "SWA"),
    ("SSE, INT-5 × 10", "SSE × 5"),
    ("cyclical SGHMC, INT-5 × 10", "cyclical SGHMC × 10"),
    ("deep ensemble × 3, INT-5 × 12", "deep ensemble × 3"),
)
"""What is compared seed by seed."""

Arms = Mapping[str, Mapping[str, Mapping[str, float]]]


def ladder(arms: Arms) -> str:
    """Every arm, mean ± standard deviation over seeds."""
    lines = [
        "| what answers | runs | forwards | Mbit | error | NLL | NLL after T | ECE |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for name, seeds in arms.items():
        many = {key: [row[key] for row in seeds.values()] for key in next(iter(seeds.values()))}
        cells = [f"{many['runs'][0]:g}", f"{many['forwards'][0]}", f"{fmean(many['megabits']):.1f}"]
        cells += [f"{spread(many['error'], 2, 100)} %"]
        cells += [spread(many[key], 3) for key in ("nll", "nll_after", "ece")]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def paired(arms: Arms) -> str:
    """Differences seed by seed: their mean, and in how many seeds the first is lower."""
    lines = ["| comparison | NLL | lower in | NLL after T | lower in |", "| --- | ---: | ---: | ---: | ---: |"]
    for one, other in PAIRS:
        if one not in arms or other not in arms:
            continue
        cells = []
        for key in ("nll", "nll_after"):
            gaps = [arms[one][seed][key] - arms[other][seed][key] for seed in arms[one]]
            cells += [spread(gaps, 4, sign="+"), f"{sum(gap < 0 for gap in gaps)}/{len(gaps)}"]
        lines.append(f"| {one} − {other} | {' | '.join(cells)} |")
    return "\n".join(lines)


def tables(found: Mapping[str, Any]) -> str:
    """Both tables, as in README.md."""
    return "\n\n".join([found["about"], ladder(found["arms"]), paired(found["arms"])])


if __name__ == "__main__":
    print(tables(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))))
