"""NLL against the number of labelled images, and of networks: the picture of README.md from stored figures.

python experiments/pools/picture.py [experiments/pools/figures.json]
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot
from matplotlib.axes import Axes

SHOWN = {
    "best single, temperature": ("#8c8c8c", "o"),
    "mean probability, temperature": ("#0072b2", "s"),
    "linear, temperature": ("#e69f00", "^"),
    "gate": ("#cc79a7", "D"),
    "log-linear": ("#009e73", "v"),
}
"""Colours that are told apart without red and green, and a mark of its own for each."""


def draw(found: Mapping[str, Any], path: Path) -> None:
    """Two panels with one scale, as SVG with the same bytes every time."""
    matplotlib.rcParams.update({"svg.hashsalt": "pools", "font.size": 9, "svg.fonttype": "none"})
    figure, (left, right) = pyplot.subplots(1, 2, figsize=(8.4, 3.4), sharey=True, layout="constrained")
    several = {count: own for count, own in found["members"].items() if int(count) > 1}
    lines(left, found["rows"])
    left.set(xscale="log", xlabel="labelled images the pool is fitted on", ylabel="NLL on the other images")
    lines(right, several)
    right.set(xlabel="networks, in a random order")
    for axes, places in ((left, found["rows"]), (right, several)):
        axes.set_xticks([int(count) for count in places], list(places))
        axes.minorticks_off()
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="y", color="#e6e6e6", linewidth=0.7)
        axes.set_axisbelow(True)
    right.legend(frameon=False, fontsize=8)
    figure.savefig(path, metadata={"Date": None, "Creator": None})
    pyplot.close(figure)


def lines(axes: Axes, found: Mapping[str, Mapping[str, Sequence[float]]]) -> None:
    """A line for each pool, a bar from the best to the worst split."""
    for place, (name, (colour, mark)) in enumerate(SHOWN.items()):
        counts = [int(count) * (1 + 0.012 * (place - 2)) for count in found]
        values = [own[name] for own in found.values()]
        middle = [fmean(one) for one in values]
        ends = [
            [centre - min(one) for centre, one in zip(middle, values, strict=True)],
            [max(one) - centre for centre, one in zip(middle, values, strict=True)],
        ]
        axes.errorbar(
            counts, middle, ends, color=colour, marker=mark, label=name, markersize=4.5, linewidth=1.5, elinewidth=0.9
        )


if __name__ == "__main__":
    stored = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).with_name("figures.json")
    draw(json.loads(stored.read_text(encoding="utf-8")), stored.with_suffix(".svg"))
