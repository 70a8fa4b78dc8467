"""NLL after temperature against what it costs: bits under two accountings, and forwards.

Of several networks memory is shown in bytes, and of networks that differ in size operations instead of forwards.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from pluria.report.ink import INK, MUTED, PAPER, Plot, canvas, clean, inline, powers, spread_out
from pluria.report.records import Arm, Figures, by_operations
from pluria.report.series import KINDS, controls, drawn, entries_of, full, kind, left_out, ringed, rings
from pluria.report.work import memory, several, spent, unit

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SINGLE = ("nearest", "gptq")
"""Kinds of controls whose marks have their number system beside them."""


def against_bits(figures: Figures) -> Plot:
    """Each drawn arm twice, at K·b and at b+K bits; each control at its own."""
    figure, lines = canvas(330), drawn(figures)
    axes = figure.subplots()
    size, word = _scale(figures)
    spots = {str(arm["name"]): (memory(arm, "members", figures) / size, _nll(arm)) for arm in _shown(figures)}
    planes = [memory(line.arm, "planes", figures) / size for line in lines]
    for line, x in reversed(list(zip(lines, planes, strict=True))):
        end, y = spots[str(line.arm["name"])]
        axes.plot([x, end], [y, y], color=line.colour, linewidth=1, alpha=0.6)
        axes.plot(x, y, line.marker, color=line.colour, markerfacecolor=PAPER, markersize=6)
        axes.plot(end, y, line.marker, color=line.colour, markersize=6)
        _ring(axes, line.arm, end, y, line.colour)
    for arm in controls(figures):
        x, y = spots[str(arm["name"])]
        _control(axes, [x], [y], arm)
    powers(axes, [x for x, _ in spots.values()] + planes)
    above = _finish(axes, word, figures, list(spots.values()), [_nll(arm) for arm in _judged(figures)])
    _label(axes, [(_system(arm), spots[str(arm["name"])]) for arm in controls(figures) if kind(arm) in SINGLE])
    caption = (
        "Filled marks count every member by itself (K·b), hollow ones floor codes and a bit plane for each member "
        f"(b+K). Lower and further left is better.{above}{left_out(figures)}"
    )
    kinds = [replace(entry, line="") for entry in entries_of(controls(figures))]
    legend = [*(line.entry("") for line in lines), *kinds, *rings(_shown(figures))]
    svg = inline(figure, "bits", f"NLL after temperature against {word}. {_told(figures)}")
    return Plot("bits", f"NLL against {'memory' if several(figures) else 'bits'}", caption, svg, tuple(legend))


def against_forwards(figures: Figures) -> Plot:
    """Drawn arms and control ensembles as lines over their first members, single models as marks at one forward."""
    figure, lines = canvas(330), drawn(figures)
    axes = figure.subplots()
    paths, word = _paths(figures)
    for arm in controls(figures):
        _control(axes, *paths[str(arm["name"])], arm)
    for line in reversed(lines):
        xs, ys = paths[str(line.arm["name"])]
        axes.plot(xs, ys, color=line.colour, marker=line.marker)
        _ring(axes, line.arm, xs[-1], ys[-1], line.colour)
    points = [point for path in paths.values() for point in zip(*path, strict=True)]
    powers(axes, [x for x, _ in points])
    judged = [y for arm in _judged(figures) for y in _curve(arm)]
    above = _finish(axes, f"{word} for each row", figures, points, judged)
    why = " Forwards of these networks differ in their work, so it is counted in operations."
    caption = (
        f"What the same {'work' if by_operations(figures) else 'number of forwards'} buys: ensembles of the first K "
        "members, and every control, single or averaged. Lower is better."
        f"{why if by_operations(figures) else ''}{above}{left_out(figures)}"
    )
    legend = [*(line.entry() for line in lines), *entries_of(controls(figures)), *rings(_shown(figures))]
    svg = inline(figure, "forwards", f"NLL after temperature against {word} for each row. {_told(figures)}")
    title = f"NLL against {'operations' if by_operations(figures) else 'forwards'}"
    return Plot("forwards", title, caption, svg, tuple(legend))


def _scale(figures: Figures) -> tuple[float, str]:
    """What memory is divided by, and what the axis is called."""
    if not several(figures):
        return 1.0, "bits for each weight"
    size, word = unit([memory(arm, "members", figures) for arm in _shown(figures)], "B")
    return size, f"{word} in all"


def _paths(figures: Figures) -> tuple[dict[str, tuple[list[float], list[float]]], str]:
    """Budget and NLL after temperature of the first K members of every arm shown, and the unit of the budget."""
    every = {str(arm["name"]): spent(arm, figures) for arm in _shown(figures)}
    most = [x for xs in every.values() for x in xs]
    size, word = unit(most, "FLOPs") if by_operations(figures) else (1.0, "forwards")
    return {
        str(arm["name"]): ([x / size for x in every[str(arm["name"])]], _curve(arm)) for arm in _shown(figures)
    }, word


def _shown(figures: Figures) -> list[Arm]:
    """Controls, and the drawn arms that have a colour."""
    return [*controls(figures), *(line.arm for line in drawn(figures))]


def _control(axes: Axes, xs: list[float], ys: list[float], arm: Arm) -> None:
    marker, first = KINDS[kind(arm)][0], kind(arm) == "full_precision"
    colour = INK if first else MUTED
    axes.plot(
        xs, ys, color=colour, marker=marker, linewidth=0.9, markersize=6 if first else 5, zorder=3 if first else 2
    )
    _ring(axes, arm, xs[-1], ys[-1], colour)


def _ring(axes: Axes, arm: Arm, x: float, y: float, colour: str) -> None:
    """A ring around the mark of several networks together."""
    if ringed(arm):
        axes.plot(x, y, "o", color=colour, markerfacecolor="none", markeredgewidth=0.9, markersize=11)


def _curve(arm: Arm) -> list[float]:
    """NLL after temperature of the first K members; the last is the mean over seeds in the table."""
    return [point["nll_scaled"] for point in arm["curve"]]


def _finish(
    axes: Axes, label: str, figures: Figures, points: Sequence[tuple[float, float]], judged: Sequence[float]
) -> str:
    """Names and scale; controls far above all that is judged become arrows at the edge, and the sentence returned."""
    axes.set_xlabel(label)
    axes.set_ylabel("NLL after temperature (nats)")
    low, high = min(y for _, y in points), max(judged)
    roof = high + 0.6 * max(high - low, 0.1 * high, 1e-6)
    spread_out(axes, [y for _, y in points if y <= roof])
    axes.margins(y=0.1)
    outside = [(x, y) for x, y in points if y > roof]
    if not outside:
        return ""
    axes.set_ylim(low - 0.1 * (roof - low) if axes.get_yscale() == "linear" else 0.9 * low, roof)
    xs, edge = [x for x, _ in outside], axes.get_xaxis_transform()
    axes.plot(xs, [1.0] * len(xs), "^", color=MUTED, markersize=6, clip_on=False, transform=edge)
    names = [f"{arm['name']} ({_nll(arm):.2f})" for arm in figures["arms"] if _nll(arm) > roof]
    return f" Above the edge: {', '.join(names) or 'some first members'}."


def _judged(figures: Figures) -> list[Arm]:
    """What must be inside the axes: full precision and every drawn arm that has a colour."""
    return [full(figures), *(line.arm for line in drawn(figures))]


def _label(axes: Axes, marks: list[tuple[str, tuple[float, float]]]) -> None:
    """The number system beside each single model; a label that would lie on another is left out."""
    figure = axes.get_figure(root=True)
    assert figure is not None
    figure.draw_without_rendering()
    edge, roof = axes.get_window_extent().x1, axes.get_ylim()[1]
    taken: list[tuple[float, float]] = []
    for name, spot in sorted((mark for mark in marks if mark[1][1] <= roof), key=lambda mark: mark[1][1]):
        wide = 8 + 5.2 * len(name)
        x, y = axes.transData.transform(spot)
        if any(abs(x - other) < wide and abs(y - height) < 11 for other, height in taken):
            continue
        taken.append((x, y))
        side = -1 if x + wide > edge else 1
        axes.annotate(
            name, spot, (6 * side, 0), textcoords="offset points", va="center", ha="left" if side > 0 else "right",
            fontsize=8, color=MUTED,
        )  # fmt: skip


def _system(arm: Arm) -> str:
    """The name without what every single model is called and without its networks."""
    name = str(arm["name"]).removesuffix(f" of {' + '.join(arm['networks'])}")
    return clean(name.replace(" nearest", "").replace(" GPTQ", ""), 18)


def _nll(arm: Arm) -> float:
    return float(arm["scaled"]["nll"])


def _bits(arm: Arm, accounting: str) -> float:
    return float(arm["cost"][f"bits_{accounting}"] / arm["cost"]["parameters"])


def _told(figures: Figures) -> str:
    return "; ".join(
        f"{arm['name']}: NLL {_nll(arm):.4f}, {_bits(arm, 'members'):.1f} or {_bits(arm, 'planes'):.1f} bits for each "
        f"weight, {arm['cost']['forwards']} forwards"
        for arm in figures["arms"]
    )
