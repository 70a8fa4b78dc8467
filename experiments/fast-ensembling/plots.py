"""Quality against backward passes and against bits, from stored figures.

python experiments/fast-ensembling/plots.py experiments/fast-ensembling/cifar10-frn-30.json
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from statistics import fmean
from typing import Any

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot
from matplotlib.axes import Axes

LINES = {
    "deep ensemble": ("#0072b2", "s"),
    "SSE": ("#e69f00", "^"),
    "cyclical SGHMC": ("#009e73", "v"),
    "IVON": ("#cc79a7", "D"),
    "SWAG": ("#8c8c8c", "P"),
    "FGE": ("#56b4e9", "o"),
}
"""Colours that are told apart without red and green, and a mark of its own for each."""

BUDGETS = {"runs": "backward passes, in training runs", "megabits_each": "bits of all members, Mbit"}
QUALITIES = {"nll_after": "NLL after temperature", "nll": "NLL", "ece": "ECE"}
Arms = Mapping[str, Mapping[str, Mapping[str, Any]]]


def places(arms: Arms, line: str, rounded: bool, budget: str, quality: str) -> list[tuple[float, float]]:
    """Budget and mean quality of every size of one kind of ensemble, the smallest first."""
    found = [list(seeds.values()) for seeds in arms.values()]
    own = [rows for rows in found if (rows[0]["line"], rows[0]["rounded"]) == (line, rounded)]
    return sorted((fmean(row[budget] for row in rows), fmean(row[quality] for row in rows)) for rows in own)


def label(title: str, rounded: bool) -> str:
    """What the legend says: SWA is the one network in the middle of SWAG."""
    name = {"SWAG": "SWA and SWAG", "IVON": "IVON, its mean and members"}.get(title, title)
    own = {"SWAG": "SWA", "IVON": "IVON's mean"}.get(title, title)
    return f"{own}, INT-5" if rounded else name


def panel(axes: Axes, arms: Arms, budget: str, quality: str) -> None:
    """A line for each kind, whole and dashed for its rounded members."""
    for title, (colour, mark) in LINES.items():
        for rounded in (False, True):
            shown = places(arms, title, rounded, budget, quality)
            if shown:
                axes.plot(
                    *zip(*shown, strict=True), color=colour, marker=mark, markersize=4.5, linewidth=1.4,
                    linestyle="--" if rounded else "-", markerfacecolor="white" if rounded else colour,
                    label=label(title, rounded),
                )  # fmt: skip
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="#e6e6e6", linewidth=0.7)
    axes.set_axisbelow(True)


def draw(found: Mapping[str, Any], path: Path) -> None:
    """Two columns for the budgets, a row for each quality, as SVG with the same bytes every time."""
    matplotlib.rcParams.update({"svg.hashsalt": "fast", "font.size": 9, "svg.fonttype": "none"})
    figure, grid = pyplot.subplots(
        len(QUALITIES), len(BUDGETS), figsize=(9, 9), sharex="col", sharey="row", layout="constrained"
    )
    for row, (quality, named) in zip(grid, QUALITIES.items(), strict=True):
        for axes, (budget, told) in zip(row, BUDGETS.items(), strict=True):
            panel(axes, found["arms"], budget, quality)
            axes.set(xscale="log" if budget == "megabits_each" else "linear")
            if quality == list(QUALITIES)[-1]:
                axes.set_xlabel(told)
        row[0].set_ylabel(named)
    told = grid[0][0].get_legend_handles_labels()
    figure.legend(*told, frameon=False, fontsize=8, ncols=4, loc="outside upper center")
    figure.savefig(path, metadata={"Date": None, "Creator": None} if path.suffix == ".svg" else None)
    pyplot.close(figure)


if __name__ == "__main__":
    stored = Path(sys.argv[1])
    out = Path(sys.argv[2]) if len(sys.argv) > 2 else stored.with_suffix(".svg")
    draw(json.loads(stored.read_text(encoding="utf-8")), out)
