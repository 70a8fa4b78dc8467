"""The tables of README.md from stored figures.

python experiments/pools/tables.py [experiments/pools/figures.json]
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean, stdev
from typing import Any


def tables(found: Mapping[str, Any]) -> str:
    """All tables, in the order of README.md."""
    return "\n\n".join(
        [networks(found), pools(found), grown(found["rows"], "rows"), grown(found["members"], "networks")]
    )


def networks(found: Mapping[str, Any]) -> str:
    """Each network alone on all images, and what the log-linear pool makes of it."""
    lines = ["| network | NLL | error | ECE | exponent |", "| --- | ---: | ---: | ---: | ---: |"]
    for (name, own), exponents in zip(found["networks"].items(), zip(*found["exponents"], strict=True), strict=True):
        lines.append(f"| {name} | {own['nll']:.4f} | {own['error']:.2%} | {own['ece']:.3f} | {spread(exponents, 2)} |")
    return "\n".join(lines)


def pools(found: Mapping[str, Any]) -> str:
    """Every pool, best NLL first, with the difference from the control and its interval."""
    splits, gaps = found["pools"]["splits"], found["pools"]["against the control"]
    lines = [
        "| pool | NLL | against the control | interval | error | Brier | ECE | AURC · 1000 |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for name in sorted(splits, key=lambda pool: mean_of(splits[pool], "nll")):
        own = splits[name]
        values = [one["nll"] for one in own if one["nll"] is not None]
        loss = spread(values, 4) if len(values) == len(own) else "∞"
        gap = gaps.get(name)
        apart = "– | –" if gap is None or gap[0] == 0 else f"{gap[0]:+.4f} | [{gap[1]:+.4f}, {gap[2]:+.4f}]"
        rest = f"{mean_of(own, 'error'):.2%} | {mean_of(own, 'brier'):.4f} | {mean_of(own, 'ece'):.4f}"
        lines.append(f"| {name} | {loss} | {apart} | {rest} | {1000 * mean_of(own, 'aurc'):.2f} |")
    return "\n".join(lines)


def grown(found: Mapping[str, Mapping[str, Sequence[float]]], what: str) -> str:
    """NLL of some pools as rows or networks become more."""
    names = list(next(iter(found.values())))
    lines = [f"| {what} | " + " | ".join(names) + " |", "| ---: |" + " ---: |" * len(names)]
    lines += [
        f"| {count} | " + " | ".join(spread(own[name], 4) for name in names) + " |" for count, own in found.items()
    ]
    return "\n".join(lines)


def spread(values: Sequence[float], digits: int) -> str:
    """Mean ± standard deviation over the splits."""
    apart = stdev(values) if len(values) > 1 else 0.0
    return f"{fmean(values):.{digits}f} ± {apart:.{digits}f}"


def mean_of(own: Sequence[Mapping[str, Any]], figure: str) -> float:
    """Mean of a figure over the splits; infinite where one has none."""
    return fmean(math.inf if one[figure] is None else one[figure] for one in own)


if __name__ == "__main__":
    stored = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).with_name("figures.json")
    print(tables(json.loads(stored.read_text(encoding="utf-8"))))
