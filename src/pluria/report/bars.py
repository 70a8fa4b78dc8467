"""Bars with their names above them, which stay legible on a phone: diversity of arms, noise of layers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pluria.report.ink import INK, MUTED, SERIES, Entry, Plot, canvas, clean, inline
from pluria.report.records import Arm, Figures
from pluria.report.series import drawn, named

if TYPE_CHECKING:
    from matplotlib.axes import Axes

FEW = 20
"""So many layers have a bar and a name each; more become points in the network's order."""
NAMED = 5
"""So many tensors that differ are named in a sentence."""
MEASURES = (("ambiguity", "ambiguity (nats)", "{:.4f}", 1), ("disagreement", "disagreement (%)", "{:.2f}", 100))


def diversity(figures: Figures) -> Plot | None:
    """Ambiguity and disagreement of every arm of several members; None where there is none."""
    arms = [arm for arm in figures["arms"] if arm["cost"]["forwards"] > 1]
    if not arms:
        return None
    colours = {line.arm["name"]: line.colour for line in drawn(figures)}
    figure = canvas(max(36 + 28 * len(arms), 110))
    for axes, (key, title, form, factor) in zip(figure.subplots(1, 2, sharey=True), MEASURES, strict=True):
        values = [factor * arm["diversity"][key] for arm in arms]
        spread = [factor * arm["spread"]["diversity"][key] if len(arm["seeds"]) > 1 else 0.0 for arm in arms]
        shades = [colours.get(arm["name"], MUTED) for arm in arms]
        _rows(axes, len(arms), max(values))
        axes.barh(range(len(arms)), values, 0.3, color=shades, linewidth=0)
        axes.hlines(range(len(arms)), *_ends(values, spread), color=INK, linewidth=1)
        for i, value in enumerate(values):
            axes.annotate(
                form.format(value),
                (value + spread[i], i),
                (4, 0),
                textcoords="offset points",
                va="center",
                fontsize=8.5,
            )
        axes.set_title(title)
        _names(axes, [arm["name"] for arm in arms] if key == "ambiguity" else [])
    caption = (
        "How much the members differ. Ambiguity is the mean member NLL minus the NLL of their mean logits: the "
        "gain of averaging. Disagreement is the share of rows on which two members answer differently. Grey: controls."
    )
    svg = inline(figure, "diversity", "Ambiguity and disagreement: " + "; ".join(map(_told, arms)))
    return Plot("diversity", "Diversity of the members", caption, svg)


def layer_noise(figures: Figures) -> Plot | None:
    """Relative noise of stochastic and of nearest rounding of every rounded tensor; None where none is rounded.

    Of error-compensated tensors the members' spread is shown; what nearest rounding would do to them is not known.
    """
    layers = figures.get("noise") or []
    if not layers:
        return None
    few = len(layers) <= FEW
    figure = canvas(max(50 + 28 * len(layers), 110) if few else 240)
    axes = figure.subplots()
    noise = [100 * layer["noise"] for layer in layers]
    nearest = {i: 100 * layer["nearest"] for i, layer in enumerate(layers) if layer["nearest"] is not None}
    places = range(len(layers))
    if few:
        _rows(axes, len(layers), max(*noise, *nearest.values(), 0.0), 1.1)
        axes.barh(places, noise, 0.3, color=SERIES[0], linewidth=0)
        axes.plot([*nearest.values()], [*nearest], "o", color=INK, markersize=4)
        axes.set_xlabel("noise, % of the tensor's norm")
        _names(axes, [layer["name"] for layer in layers])
    else:
        axes.vlines(places, 0, noise, color=SERIES[0], linewidth=max(0.5, min(3.0, 220 / len(layers))), alpha=0.8)
        axes.plot([*nearest], [*nearest.values()], "o", color=INK, markersize=2)
        axes.set(xlabel="rounded tensor, in the network's order", ylabel="noise, % of the tensor's norm")
        axes.set_ylim(bottom=0)
    most = max(layers, key=lambda layer: layer["noise"])
    caption = f"Largest: {most['name']}, {most['noise']:.1%}. {_rounded(figures)}"
    made = compensates(figures)
    legend = [Entry("members' spread" if made else "a stochastic member", SERIES[0], "bar")]
    legend += [Entry("nearest rounding", INK, "o")] if nearest else []
    alt = f"Relative rounding noise of {len(layers)} tensors. {caption}"
    return Plot("noise", "Rounding noise of each tensor", caption, inline(figure, "noise", alt), tuple(legend))


def compensates(figures: Figures) -> bool:
    """Whether the main arm makes up for rounding errors, where it can."""
    return bool(named(figures, figures["main"])["method"] == "compensated")


def _rounded(figures: Figures) -> str:
    """How the tensors were rounded, and which of them otherwise."""
    if not compensates(figures):
        return "A stochastic member carries about √2 times the noise of nearest rounding, so only the ensemble can win."
    plainly = [layer["name"] for layer in figures["noise"] if not layer["compensated"]]
    told = "Weights rounded later make up for those before them, so outputs move less than these figures suggest."
    if not plainly:
        return told
    names = ", ".join(plainly[:NAMED]) + (f" and {len(plainly) - NAMED} more" if len(plainly) > NAMED else "")
    return f"{told} Rounded plainly, since their inputs could not be captured: {names}."


def _rows(axes: Axes, count: int, most: float, room: float = 1.45) -> None:
    """Rows from above, with room for a number behind the longest bar."""
    axes.set(ylim=(max(count, 3) - 0.5, -0.85), xlim=(0, room * most if most > 0 else 1), yticks=[])
    axes.grid(False, axis="y")
    axes.spines["left"].set_visible(False)
    axes.locator_params(axis="x", nbins=3 if room > 1.2 else 6)


def _names(axes: Axes, names: list[str]) -> None:
    for i, name in enumerate(names):
        axes.annotate(
            clean(name, 52), (0, i), (0, 6), xycoords=("axes fraction", "data"), textcoords="offset points",
            fontsize=9, va="bottom", annotation_clip=False, in_layout=False,
        )  # fmt: skip


def _ends(values: list[float], spread: list[float]) -> tuple[list[float], list[float]]:
    pairs = list(zip(values, spread, strict=True))
    return [max(value - sd, 0.0) for value, sd in pairs], [value + sd for value, sd in pairs]


def _told(arm: Arm) -> str:
    found = arm["diversity"]
    return f"{arm['name']}: ambiguity {found['ambiguity']:.4f}, disagreement {found['disagreement']:.2%}"
