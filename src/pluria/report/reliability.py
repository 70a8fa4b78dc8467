"""Reliability diagrams: the share of right answers against confidence, with counts and Wilson intervals."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from pluria.report.ink import INK, MUTED, SERIES, Plot, canvas, inline
from pluria.report.records import Figures
from pluria.report.series import full, named

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Bins = Mapping[str, Sequence[float]]


def reliability(figures: Figures) -> Plot:
    """Full precision and the main arm, before temperature and after; counts of rows on a logarithmic scale below."""
    reference, main = full(figures), named(figures, figures["main"])
    panels = [
        (arm, part, bins, colour)
        for arm, colour in ((reference, INK), (main, SERIES[0]))
        for part, bins in (("scores", "reliability"), ("scaled", "reliability_scaled"))
    ]
    figure = canvas(410)
    grid = figure.subplots(4, 2, height_ratios=(3, 1, 3, 1), sharex=True)
    most = max(max(arm[bins]["count"]) for arm, _, bins, _ in panels)
    for i, (arm, part, bins, colour) in enumerate(panels):
        upper, lower = grid[2 * (i // 2)][i % 2], grid[2 * (i // 2) + 1][i % 2]
        _diagram(upper, arm[bins], colour)
        _counts(lower, arm[bins], colour, most)
        who = "full precision" if arm is reference else "main"
        upper.set_title(f"{who}{' + T' if part == 'scaled' else ''}: ECE {arm[part]['ece']:.1%}", fontsize=9)
        if i % 2:
            upper.tick_params(labelleft=False)
            lower.tick_params(labelleft=False)
        else:
            upper.set_ylabel("share right", fontsize=9)
            lower.set_ylabel("rows", fontsize=9)
    for axes in grid[3]:
        axes.set_xlabel("confidence")
    caption = (
        f"On the diagonal, confidence is the share of right answers; below it the network is too sure. Main is "
        f"{main['name']}. Whiskers are 95% Wilson intervals of each bin; the bars count rows, on a logarithmic scale."
    )
    alt = "Reliability diagrams. ECE: " + "; ".join(
        f"{arm['name']} {'after' if part == 'scaled' else 'before'} temperature {arm[part]['ece']:.2%}"
        for arm, part, _, _ in panels
    )
    return Plot("reliability", "Reliability", caption, inline(figure, "reliability", alt))


def wilson(right: float, count: float, z: float = 1.959964) -> tuple[float, float]:
    """Interval of a share: (p + z²/2n ± z sqrt(p(1-p)/n + z²/4n²)) / (1 + z²/n) (Wilson 1927).

    >>> [round(end, 3) for end in wilson(0.5, 10)]
    [0.237, 0.763]
    """
    middle, scale = right + z * z / (2 * count), 1 + z * z / count
    half = z * math.sqrt(right * (1 - right) / count + z * z / (4 * count * count))
    return (middle - half) / scale, (middle + half) / scale


def _diagram(axes: Axes, bins: Bins, colour: str) -> None:
    axes.plot([0, 1], [0, 1], color=MUTED, linewidth=0.9, linestyle="--")
    filled = [(s, r, n) for s, r, n in zip(bins["confidence"], bins["accuracy"], bins["count"], strict=True) if n]
    for sure, right, count in filled:
        axes.plot([sure, sure], wilson(min(right, 1.0), count), color=colour, linewidth=0.9, alpha=0.55)
    axes.plot([s for s, _, _ in filled], [r for _, r, _ in filled], "o-", color=colour, markersize=3.5, linewidth=1.2)
    axes.set(xlim=(0, 1.02), ylim=(0, 1.02), xticks=(0, 0.5, 1), yticks=(0, 0.5, 1))


def _counts(axes: Axes, bins: Bins, colour: str, most: float) -> None:
    from matplotlib.ticker import LogLocator, NullLocator

    width = 1 / len(bins["count"])
    places = [(i + 0.5) * width for i in range(len(bins["count"]))]
    axes.bar(places, bins["count"], width * 0.8, bottom=0.5, color=colour, alpha=0.7, linewidth=0)
    axes.set(yscale="log", ylim=(0.5, 2 * max(most, 1)))
    axes.yaxis.set_major_locator(LogLocator(numticks=3))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
