"""The tables of README.md from stored figures.

python experiments/ladder/tables.py [experiments/ladder/figures.json]
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from statistics import fmean, stdev
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
    ("SWA", "SWA, stale norms"),
    ("cyclical SGHMC, T = 1", "cyclical SGHMC, T = 1/N"),
    ("cyclical SGLD, T = 1", "cyclical SGLD, T = 1/N"),
    ("cyclical SGLD, T = 1/N", "single"),
    ("IVON × 20, rate 0.1", "single"),
    ("IVON × 20, rate 1", "single"),
    ("subnetworks × 4", "MC dropout × 20"),
    ("subnetworks × 4", "deep ensemble × 4"),
    ("subnetworks × 4, claimed", "subnetworks × 4"),
    ("MC dropout × 20", "single"),
    ("prune and tune × 6, 3 epochs", "prune and tune × 6, 3 epochs, random"),
    ("prune and tune × 6, 30 epochs", "prune and tune × 6, 30 epochs, random"),
    ("prune and tune × 6, 3 epochs", "single"),
    ("prune and tune × 6, 30 epochs", "prune and tune × 6, 3 epochs"),
    ("packed × 4", "deep ensemble × 4"),
    ("MultiSWAG × 4 × 5", "deep ensemble × 4"),
    ("sparse tickets × 4, four runs long", "SSE × 4, four runs long"),
    ("LoRA × 4 on one network", "single"),
    ("together × 4, gamma = 1", "deep ensemble × 4"),
    ("repulsive × 4", "deep ensemble × 4"),
    ("late phase × 5 averaged", "single"),
    ("late phase × 5 averaged, rank 1", "single"),
    ("late phase × 5 averaged, last layer", "single"),
    ("late phase × 5 averaged, hypernetwork", "single"),
    ("late phase × 5 averaged, from the start", "single"),
    ("late phase × 5 averaged, rank 1, from the start", "single"),
    ("late phase × 5 averaged, rank 1, from the start", "late phase × 5, rank 1, from the start"),
    ("tangents × 4, composed", "single"),
    ("line, its middle", "line, its end"),
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

KNOWN = (
    ("deep ensemble × 4", "single", -0.0201, 0.0016),
    ("subnetworks × 4", "MC dropout × 20", -0.0163, 0.0023),
    ("subnetworks × 4", "deep ensemble × 4", 0.0089, 0.0015),
    ("prune and tune × 6, 3 epochs", "single", 0.0304, 0.0026),
    ("cyclical SGLD, T = 1", "cyclical SGLD, T = 1/N", 0.0557, 0.0046),
    ("late phase × 5 averaged, rank 1, from the start", "single", 0.0611, 0.0058),
    ("late phase × 5 averaged, rank 1, from the start", "late phase × 5, rank 1, from the start", 0.033, 0.003),
    ("line, its middle", "line, its end", -0.0221, 0.0042),
    ("SSE × 4, four runs long", "deep ensemble × 4", 0.0019, 0.0017),
    ("SSE × 4", "single", 0.0020, 0.0022),
    ("FGE × 4", "single", -0.0050, 0.0030),
    ("MC dropout × 20", "single", 0.0051, 0.0023),
    ("SWAG × 20", "SWA", -0.0002, 0.0001),
    ("SWA", "SWA, stale norms", -0.0005, 0.0004),
    ("prune and tune × 6, 3 epochs", "prune and tune × 6, 3 epochs, random", -0.0043, 0.0012),
    ("late phase × 5 averaged", "single", 0.0006, 0.0002),
    ("line, its middle", "single", -0.0049, 0.0031),
    ("line × 5", "single", -0.0088, 0.0035),
)
"""Differences of NLL that another implementation found in this setting over 16 to 24 seeds, with their standard errors;
the first eight are those it called solid."""


def tables(found: Mapping[str, Any]) -> str:
    """All tables, in the order of README.md."""
    rungs = found["rungs"]
    return "\n\n".join([f"{found['machine']}, {found['date']}", ladder(rungs), paired(rungs), beside(rungs)])


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


def beside(rungs: Mapping[str, Mapping[str, Mapping[str, float]]]) -> str:
    """Our differences of NLL beside those known, and whether they are within two standard errors of one another."""
    lines = ["| comparison | known | ours | |", "| --- | ---: | ---: | --- |"]
    for one, other, known, wide in KNOWN:
        seeds = sorted(rungs.get(one, {}).keys() & rungs.get(other, {}).keys())
        if len(seeds) < 2:
            continue
        gaps = [rungs[one][seed]["nll"] - rungs[other][seed]["nll"] for seed in seeds]
        ours, error = fmean(gaps), stdev(gaps) / len(gaps) ** 0.5
        near = abs(ours - known) <= 2 * (wide**2 + error**2) ** 0.5
        word = "agree" if near else "differ in size" if ours * known > 0 else "differ"
        lines.append(f"| {one} − {other} | {known:+.4f} ± {wide:.4f} | {lower(gaps)[0]} | {word} |")
    return "\n".join(lines)


if __name__ == "__main__":
    path = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent / "figures.json"
    print(tables(json.loads(path.read_text())))
