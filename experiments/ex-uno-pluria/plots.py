"""Quality against bits and against work, of both recipes, from their stored figures.

    python experiments/ex-uno-pluria/plots.py experiments/ex-uno-pluria --out experiments/ex-uno-pluria/budgets.svg

The folder holds one/figures.json and several/figures.json of the two runs.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt

KINDS = {
    "full precision": ("black", "o", "one network"),
    "views": ("tab:green", "D", "one network, its views"),
    "single": ("tab:gray", "s", "one network in low bits"),
    "low views": ("tab:gray", "D", "one network in low bits, its views"),
    "ensemble": ("tab:blue", "^", "members of one network"),
    "several": ("tab:red", "*", "several networks"),
}
AXES = {
    "bits": "bits of all weights, Mbit (b + K planes where they serve)",
    "work": "GFLOPs for each example",
}


def kind(arm: dict[str, Any]) -> str:
    """What sort of answer an arm gives."""
    if len(arm["networks"]) > 1:
        return "several"
    if arm["method"] == "full_precision":
        return "views" if arm["members"] > 1 else "full precision"
    if arm["method"] in ("nearest", "gptq"):
        return "low views" if arm["members"] > 1 else "single"
    return "ensemble"


def budget(arm: dict[str, Any], axis: str) -> float:
    """Mbit or GFLOPs."""
    cost = arm["cost"]
    return min(cost["bits_planes"], cost["bits_members"]) / 1e6 if axis == "bits" else cost["flops"] / 1e9


def frontier(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """Points that nothing cheaper reaches, with steps between them."""
    best, found = float("inf"), []
    for x, y in sorted(points):
        if y < best:
            found += [(x, best), (x, y)] if found else [(x, y)]
            best = y
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--out", type=Path, default=Path("budgets.svg"))
    given = parser.parse_args()
    files = [given.folder / name / "figures.json" for name in ("one", "several")]
    runs = [json.loads(file.read_text(encoding="utf-8")) for file in files]
    arms = [arm for run in runs for arm in run["arms"]]
    mpl.rcParams["svg.hashsalt"] = "budgets"
    figure, axes = plt.subplots(1, 2, figsize=(11, 4.4), sharey=True, layout="constrained")
    for panel, (axis, label) in zip(axes, AXES.items(), strict=True):
        for name, (colour, marker, told) in KINDS.items():
            shown = [arm for arm in arms if kind(arm) == name and arm["scaled"]["nll"] < 0.3]
            places = [(budget(arm, axis), arm["scaled"]["nll"]) for arm in shown]
            size = 90 if marker == "*" else 34
            panel.scatter(*zip(*places, strict=True), c=colour, marker=marker, s=size, label=told, alpha=0.8, lw=0)
        edge = frontier([(budget(arm, axis), arm["scaled"]["nll"]) for arm in arms])
        panel.plot(*zip(*edge, strict=True), c="tab:orange", lw=1, zorder=0, label="nothing cheaper is better")
        panel.set(xscale="log", xlabel=label, ylim=(0.15, 0.3))
        panel.grid(alpha=0.25)
    axes[0].set_ylabel("NLL after calibration, 5,000 images")
    axes[1].legend(frameon=False, fontsize=8, loc="lower left")
    figure.savefig(given.out, metadata={"Date": None} if given.out.suffix == ".svg" else None)
    print(f"{len(arms)} arms -> {given.out}")


if __name__ == "__main__":
    main()
