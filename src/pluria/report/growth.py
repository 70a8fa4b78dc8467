"""NLL or ECE as members are added, before temperature and after."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pluria.report.ink import INK, MUTED, Entry, Plot, canvas, inline, powers
from pluria.report.records import Arm, Figures, reference_name
from pluria.report.series import Series, best_single, drawn, full, left_out

if TYPE_CHECKING:
    from matplotlib.axes import Axes

NAMES = {"nll": "NLL", "ece": "ECE"}
UNITS = {"nll": "nats", "ece": "%"}
PANELS = (("", "before temperature"), ("_scaled", "after temperature"))


def against_members(figures: Figures, score: str) -> Plot | None:
    """`score` (nll or ece) against K in two panels; None where every drawn arm is one model."""
    lines = [line for line in drawn(figures) if len(line.arm["curve"]) > 1]
    if not lines:
        return None
    figure, name = canvas(330), NAMES[score]
    for axes, (suffix, title) in zip(figure.subplots(2, sharex=True), PANELS, strict=True):
        for line in reversed(lines):
            _curve(axes, line, score + suffix, score)
        _references(axes, figures, score, suffix)
        powers(axes, [point["k"] for line in lines for point in line.arm["curve"]])
        axes.set_title(title)
        axes.set_ylabel(f"{name} ({UNITS[score]})")
    axes.set_xlabel("members K")
    shown = next((line for line in lines if line.arm["name"] == figures["main"]), lines[0])
    band = "bootstrap over the rows" if score == "nll" else "1.96 deviations of the bootstrap over the rows"
    caption = (
        f"The first K members of each arm. A member alone usually loses to full precision; averaging must win that "
        f"back. The band of {shown.arm['name']} is a 95% interval: {band}.{left_out(figures)}"
    )
    return Plot(
        f"{score}-members", f"{name} against members", caption,
        inline(figure, f"{score}-members", _told(lines, name, score)), tuple(_legend(figures, lines)),
    )  # fmt: skip


def _curve(axes: Axes, line: Series, key: str, score: str) -> None:
    points = line.arm["curve"]
    sizes, factor = [point["k"] for point in points], 100 if score == "ece" else 1
    own = [[factor * point[f"{key}{end}"] for point in points] for end in ("", "_low", "_high")]
    axes.plot(sizes, own[0], color=line.colour, marker=line.marker)
    if line.marker == "o":
        axes.fill_between(sizes, own[1], own[2], color=line.colour, alpha=0.14, linewidth=0)


def _references(axes: Axes, figures: Figures, score: str, suffix: str) -> None:
    part, factor = "scaled" if suffix else "scores", 100 if score == "ece" else 1
    axes.axhline(factor * full(figures)[part][score], color=INK, linewidth=1.1)
    single = best_single(figures)
    if single is not None:
        axes.axhline(factor * single[part][score], color=MUTED, linewidth=1.3, linestyle="--")


def _legend(figures: Figures, lines: list[Series]) -> list[Entry]:
    single = best_single(figures)
    found = [*(line.entry() for line in lines), Entry(reference_name(figures), INK, "", "-")]
    return found + ([Entry(f"best single control: {single['name']}", MUTED, "", "--")] if single else [])


def _told(lines: list[Series], name: str, score: str) -> str:
    return f"{name} against the number of members. After temperature: " + "; ".join(
        _ends(line.arm, f"{score}_scaled") for line in lines
    )


def _ends(arm: Arm, key: str) -> str:
    first, last = arm["curve"][0], arm["curve"][-1]
    return f"{arm['name']} {_number(first[key])} at {first['k']}, {_number(last[key])} at {last['k']}"


def _number(value: Any) -> str:
    return f"{value:.4f}"
