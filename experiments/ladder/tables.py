"""The tables of README.md from stored figures.

python experiments/ladder/tables.py [experiments/ladder/figures.json]
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from statistics import fmean
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from seeds import lower, spread

PAIRS = (
    ("deep ensemble × 4", "single"),
    ("SSE × 4, four runs long", "deep ensemble × 4"),
    ("SSE × 4", "single"),
    ("FGE × 4", "single"),
    ("SWAG × 20", "SWA"),
    ("EMA", "SWA"),
    ("cyclical SGHMC, T = 1", "cyclical SGHMC, T = 1/N"),
    ("IVON × 20, rate 0.1", "single"),
    ("IVON × 20, rate 1", "single"),
    ("subnetworks × 4", "MC dropout × 20"),
    ("subnetworks × 4", "deep ensemble × 4"),
    ("MC dropout × 20", "single"),
    ("prune and tune × 6, 30 epochs", "prune and tune × 6, 3 epochs"),
    ("packed × 4", "deep ensemble × 4"),
    ("MultiSWAG × 4 × 5", "deep ensemble × 4"),
    ("sparse tickets × 4, four runs long", "SSE × 4, four runs long"),
    ("LoRA × 4 on one network", "single"),
    ("together × 4, gamma = 1", "deep ensemble × 4"),
    ("repulsive × 4", "deep ensemble × 4"),
    ("late phase × 5 averaged", "single"),
    ("late phase × 5 averaged, from the start", "single"),
    ("line, its middle", "single"),
    ("line × 5", "single"),
    ("EnsLoss", "single"),
    ("distilled from × 4", "single"),
    ("single, INT-4 × 8", "single"),
    ("deep ensemble × 4, INT-4 × 2 each", "deep ensemble × 4"),
    ("SSE × 4, INT-4 × 2 each", "SSE × 4"),
    ("SWA, INT-4 × 8", "SWA"),
)
"""What is compared seed by seed."""


def tables(found: Mapping[str, Any]) -> str:
    """Both tables, in the order of README.md."""
    return "\n\n".join([f"{found['machine']}, {found['date']}", ladder(found["rungs"]), paired(found["rungs"])])


def ladder(rungs: Mapping[str, Mapping[str, Mapping[str, float]]]) -> str:
    """Every rung, mean ± standard deviation over seeds."""
    lines = [
        "| method | runs | forwards | error | NLL | NLL after T | ECE | member error | gap | disagreement |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for name, seeds in rungs.items():
        rows = list(seeds.values())
        many = {key: [row[key] for row in rows] for key in rows[0]}
        cells = [f"{many['runs'][0]:.3g}", f"{many['forwards'][0]:.0f}", f"{spread(many['error'], 2, 100)} %"]
        cells += [spread(many["nll"], 3), spread(many["nll_after"], 3), f"{fmean(many['ece']):.3f}"]
        cells += [f"{fmean(many['member_error']):.2%}", f"{fmean(many['ambiguity']):.4f}"]
        lines.append(f"| {name} | {' | '.join(cells)} | {fmean(many['disagreement']):.3f} |")
    return "\n".join(lines)


def paired(rungs: Mapping[str, Mapping[str, Mapping[str, float]]]) -> str:
    """Differences of NLL seed by seed, with the standard error of their mean."""
    lines = ["| comparison | NLL | lower in | NLL after T | lower in |", "| --- | ---: | ---: | ---: | ---: |"]
    for one, other in PAIRS:
        seeds = sorted(rungs.get(one, {}).keys() & rungs.get(other, {}).keys())
        if len(seeds) < 2:
            continue
        cells = []
        for key in ("nll", "nll_after"):
            gaps = [rungs[one][seed][key] - rungs[other][seed][key] for seed in seeds]
            cells += lower(gaps)
        lines.append(f"| {one} − {other} | {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    path = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent / "figures.json"
    print(tables(json.loads(path.read_text())))
