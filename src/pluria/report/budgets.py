"""NLL after temperature against what it costs: bits for each weight under two accountings, and forwards."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pluria.report.ink import INK, MUTED, PAPER, Entry, Plot, canvas, clean, inline, powers, spread_out
from pluria.report.records import Arm, Figures
from pluria.report.series import KINDS, controls, drawn, entries_of, full, kind, left_out

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def against_bits(figures: Figures) -> Plot:
    """Each drawn arm twice, at K·b and at b+K bits for each weight; each control at its own."""
    figure, lines = canvas(330), drawn(figures)
    axes = figure.subplots()
    for line in reversed(lines):
        y, ends = _nll(line.arm), [_bits(line.arm, "planes"), _bits(line.arm, "members")]
        axes.plot(ends, [y, y], color=line.colour, linewidth=1, alpha=0.6)
        axes.plot(ends[0], y, line.marker, color=line.colour, markerfacecolor=PAPER, markersize=6)
        axes.plot(ends[1], y, line.marker, color=line.colour, markersize=6)
    for arm in controls(figures):
        _control(axes, [_bits(arm, "members")], [_nll(arm)], arm)
    spots = [(_bits(arm, "members"), _nll(arm)) for arm in [*controls(figures), *(line.arm for line in lines)]]
    powers(axes, [x for x, _ in spots] + [_bits(line.arm, "planes") for line in lines])
    above = _finish(axes, "bits for each weight", figures, spots, [_nll(arm) for arm in _judged(figures)])
    _label(axes, [arm for arm in controls(figures) if kind(arm) == "nearest"])
    caption = (
        "Filled marks count every member by itself (K·b), hollow ones floor codes and a bit plane for each member "
        f"(b+K). Lower and further left is better.{above}{left_out(figures)}"
    )
    legend = [line.entry("") for line in lines] + entries_of(controls(figures))
    svg = inline(figure, "bits", f"NLL after temperature against bits for each weight. {_told(figures)}")
    return Plot("bits", "NLL against bits", caption, svg, tuple(legend))


def against_forwards(figures: Figures) -> Plot:
    """Drawn arms and control ensembles as lines over their first members, single models as marks at one forward."""
    figure, lines = canvas(330), drawn(figures)
    axes = figure.subplots()
    points = []
    for arm in controls(figures):
        xs, ys = _path(arm)
        _control(axes, xs, ys, arm)
        points += list(zip(xs, ys, strict=True))
    for line in reversed(lines):
        xs, ys = _path(line.arm)
        axes.plot(xs, ys, color=line.colour, marker=line.marker)
        points += list(zip(xs, ys, strict=True))
    powers(axes, [x for x, _ in points])
    above = _finish(
        axes, "forwards for each row", figures, points, [y for arm in _judged(figures) for y in _path(arm)[1]]
    )
    caption = (
        "What the same number of forwards buys: ensembles of the first K members, and every control, single or "
        f"averaged. Lower is better.{above}{left_out(figures)}"
    )
    lone = entries_of([arm for arm in controls(figures) if len(arm["curve"]) == 1])
    groups = entries_of([arm for arm in controls(figures) if len(arm["curve"]) > 1], "-")
    legend: list[Entry] = [*(line.entry() for line in lines), *lone, *groups]
    svg = inline(figure, "forwards", f"NLL after temperature against forwards for each row. {_told(figures)}")
    return Plot("forwards", "NLL against forwards", caption, svg, tuple(legend))


def _control(axes: Axes, xs: list[float], ys: list[float], arm: Arm) -> None:
    marker, first = KINDS[kind(arm)][0], kind(arm) == "full_precision"
    colour = INK if first else MUTED
    axes.plot(
        xs, ys, color=colour, marker=marker, linewidth=0.9, markersize=6 if first else 5, zorder=3 if first else 2
    )


def _path(arm: Arm) -> tuple[list[float], list[float]]:
    """Forwards and NLL after temperature of the first K members; the last is the mean over seeds in the table."""
    return [float(point["k"]) for point in arm["curve"]], [point["nll_scaled"] for point in arm["curve"]]


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
    """What must be inside the axes: full precision and every drawn arm."""
    return [full(figures), *(arm for arm in figures["arms"] if not arm["control"])]


def _label(axes: Axes, arms: list[Arm]) -> None:
    """The number system beside each single model; a label that would lie on another is left out."""
    figure = axes.get_figure(root=True)
    assert figure is not None
    figure.draw_without_rendering()
    edge = axes.get_window_extent().x1
    taken: list[tuple[float, float]] = []
    for arm in sorted((arm for arm in arms if _nll(arm) <= axes.get_ylim()[1]), key=_nll):
        name = clean(str(arm["name"]).replace(" nearest", ""), 18)
        spot, wide = (_bits(arm, "members"), _nll(arm)), 8 + 5.2 * len(name)
        x, y = axes.transData.transform(spot)
        if any(abs(x - other) < wide and abs(y - height) < 11 for other, height in taken):
            continue
        taken.append((x, y))
        side = -1 if x + wide > edge else 1
        axes.annotate(
            name, spot, (6 * side, 0), textcoords="offset points", va="center", ha="left" if side > 0 else "right",
            fontsize=8, color=MUTED,
        )  # fmt: skip


def _bits(arm: Arm, accounting: str) -> float:
    return float(arm["cost"][f"bits_{accounting}"] / arm["cost"]["parameters"])


def _nll(arm: Arm) -> float:
    return float(arm["scaled"]["nll"])


def _told(figures: Figures) -> str:
    return "; ".join(
        f"{arm['name']}: NLL {_nll(arm):.4f}, {_bits(arm, 'members'):.1f} or {_bits(arm, 'planes'):.1f} bits, "
        f"{arm['cost']['forwards']} forwards"
        for arm in figures["arms"]
    )
