"""The loss on the line between two networks, before and after they are aligned: the picture of README.md.

python experiments/rebasin/picture.py [experiments/rebasin/figures.json]
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot

SHOWN = {
    "as they are": ("#8c8c8c", "-"),
    "matched by weights": ("#0072b2", "-"),
    "matched by activations": ("#e69f00", "--"),
}


def draw(rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    """A panel for each kind of trained networks, a line for each seed, as SVG with the same bytes every time."""
    kinds = [kind for kind in dict.fromkeys(row["kind"] for row in rows) if not kind.startswith("public")]
    matplotlib.rcParams.update({"svg.hashsalt": "rebasin", "font.size": 9, "svg.fonttype": "none"})
    figure, panels = pyplot.subplots(
        1, len(kinds), figsize=(2.1 * len(kinds) + 0.4, 2.9), sharey=True, squeeze=False, layout="constrained"
    )
    for axes, kind in zip(panels[0], kinds, strict=True):
        for way, (colour, style) in SHOWN.items():
            for row in rows:
                if (row["kind"], row["way"]) == (kind, way):
                    steps = len(row["losses"]) - 1
                    label = way if row["seed"] == 0 else None
                    axes.plot([i / steps for i in range(steps + 1)], row["losses"], style, color=colour, label=label)
        axes.set_title(kind, fontsize=9)
        axes.set_xticks([0, 0.5, 1], ["0", "0.5", "1"])
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="y", color="#e6e6e6", linewidth=0.7)
        axes.set_axisbelow(True)
    panels[0][0].set(ylabel="NLL on test images")
    figure.supxlabel("share of the second network", fontsize=9)
    panels[0][1].legend(frameon=False, fontsize=8, loc="upper right")
    figure.savefig(path, metadata={"Date": None, "Creator": None})
    pyplot.close(figure)


if __name__ == "__main__":
    given = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).with_name("figures.json")
    draw(json.loads(given.read_text(encoding="utf-8")), Path(__file__).with_name("lines.svg"))
