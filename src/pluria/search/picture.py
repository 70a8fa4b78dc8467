"""Quality against cost of every candidate of the last look: the front, its knee and the winner."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pluria.report.ink import GRID, INK, MUTED, PAPER, SERIES, VARIABLES, canvas, clean, drawing, inline
from pluria.store.atomic import replacing

Found = Mapping[str, Any]
LABELS = {"bits": "Mbit of all members", "forwards": "forwards for each example"}
UNITS = {"bits": 1e6, "forwards": 1.0}
COLOURS = dict(zip((INK, MUTED, GRID, PAPER, *SERIES), (
    "#1b1f24", "#6e7781", "#e3e6ea", "#ffffff", "#0b62a8", "#b85300", "#00806a", "#a33d7d", "#857000", "#5b4bb5",
), strict=True))  # fmt: skip
ROOF = 1.5
"""Candidates of more than so many times the front's worst NLL are left out, and counted."""


def draw(found: Found, axis: str, place: Path) -> None:
    """Write one picture as an SVG of its own; the same figures give the same bytes."""
    with drawing():
        figure = canvas(300)
        axes = figure.subplots()
        line, knee = found["fronts"][axis]["points"], found["fronts"][axis]["knee"]
        roof = ROOF * max(one["nll"] for one in line)
        shown = [one for one in found["candidates"] if one["nll"] <= roof]
        axes.plot(*_places(shown, axis), "o", color=MUTED, markersize=2.5, alpha=0.5)
        axes.plot(*_places(line, axis), color=SERIES[0], marker="o", drawstyle="steps-post")
        axes.plot(*_places([found["winner"]], axis), "*", color=SERIES[1], markersize=11)
        if knee is not None:
            axes.plot(*_places([knee], axis), "o", color=INK, markerfacecolor="none", markersize=11)
            at = (knee[axis] / UNITS[axis], knee["nll"])
            axes.annotate("knee", at, (8, 8), textcoords="offset points", color=INK)
        axes.set(xscale="log", xlabel=LABELS[axis], ylabel="NLL on calibration rows (nats)")
        axes.set_title(clean(found["title"]))
        text = inline(figure, axis, caption(found, axis, len(found["candidates"]) - len(shown)))
    with replacing(place) as file:
        file.write(standalone(text).encode())


def caption(found: Found, axis: str, hidden: int) -> str:
    """What the picture shows, in words."""
    line, knee = found["fronts"][axis]["points"], found["fronts"][axis]["knee"]
    points = "; ".join(f"{one['name']}: NLL {one['nll']:.4f} at {one[axis] / UNITS[axis]:.4g}" for one in line)
    bend = "" if knee is None else f" Knee: {knee['name']}."
    above = f" {hidden} candidates lie above." if hidden else ""
    return f"Front against {LABELS[axis]}: {points}.{bend} Star: {found['winner']['name']}.{above}"


def standalone(svg: str) -> str:
    """An inline picture as a file of its own, in plain colours."""
    for mark, variable in VARIABLES.items():
        svg = svg.replace(variable, COLOURS[mark])
    return re.sub(r"^<svg ", '<svg xmlns="http://www.w3.org/2000/svg" font-family="sans-serif" ', svg, count=1) + "\n"


def _places(candidates: list[Found], axis: str) -> tuple[list[float], list[float]]:
    return [one[axis] / UNITS[axis] for one in candidates], [one["nll"] for one in candidates]
