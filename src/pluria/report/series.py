"""Which arms a figure shows and how: the main arm and the next best in colours, controls in grey by their kind."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pluria.report.ink import INK, MARKERS, MUTED, SERIES, Entry
from pluria.report.records import Arm, Figures, reference_name

KINDS = {
    "full_precision": ("o", "full precision"),
    "views": ("d", "full precision, several views"),
    "nearest": ("s", "nearest rounding"),
    "gptq": ("v", "nearest rounding, with feedback"),
    "low_precision": ("P", "stochastic rounding, without feedback"),
    "gaussian": ("x", "Gaussian of matched variance"),
    "dropout": ("+", "MC dropout"),
    "other": ("*", "another control"),
}


@dataclass(frozen=True)
class Series:
    """One drawn arm with the colour and marker it has in every figure."""

    arm: Arm
    colour: str
    marker: str

    def entry(self, line: str = "-") -> Entry:
        """Its line in a legend."""
        return Entry(str(self.arm["name"]), self.colour, self.marker, line)


def drawn(figures: Figures) -> list[Series]:
    """The main arm first, then the drawn arms of smallest calibration NLL, in table order; at most six."""
    arms = [arm for arm in figures["arms"] if not arm["control"] and arm["name"] != figures["main"]]
    kept = sorted(arms, key=lambda arm: arm["calibration_nll_scaled"])[: len(SERIES) - 1]
    chosen = [named(figures, figures["main"]), *(arm for arm in arms if arm in kept)]
    return [Series(*parts) for parts in zip(chosen, SERIES, MARKERS, strict=False)]


def left_out(figures: Figures) -> str:
    """A sentence on the drawn arms that have no colour of their own; empty where there are none."""
    count = sum(not arm["control"] for arm in figures["arms"]) - len(drawn(figures))
    return f" {count} more drawn arms are in the table." if count else ""


def named(figures: Figures, name: str) -> Arm:
    """The arm of this name."""
    return next(arm for arm in figures["arms"] if arm["name"] == name)


def full(figures: Figures) -> Arm:
    """The arm every other is compared with."""
    return named(figures, reference_name(figures))


def best_single(figures: Figures) -> Arm | None:
    """The control of one forward, other than full precision, with the smallest calibration NLL after temperature."""
    singles = [
        a
        for a in figures["arms"]
        if a["control"] and a["cost"]["forwards"] == 1 and a["name"] != reference_name(figures)
    ]
    return min(singles, key=lambda arm: arm["calibration_nll_scaled"], default=None)


def controls(figures: Figures) -> list[Arm]:
    """Every control, in table order."""
    return [arm for arm in figures["arms"] if arm["control"]]


def ringed(arm: Arm) -> bool:
    """Whether several networks answer together: such arms wear a ring."""
    return len(arm["networks"]) > 1


def kind(arm: Arm) -> str:
    """What kind of control an arm is: a key of KINDS."""
    if arm["method"] == "full_precision" and len(arm["views"]) > 1:
        return "views"
    return str(arm["method"]) if arm["method"] in KINDS else "other"


def entries_of(arms: Sequence[Arm]) -> list[Entry]:
    """Legend of the kinds of some controls, with a line where one of the kind has several members."""
    lines = {kind(arm): "" for arm in arms} | {kind(arm): "-" for arm in arms if len(arm["curve"]) > 1}
    return [Entry(KINDS[k][1], INK if k == "full_precision" else MUTED, KINDS[k][0], line) for k, line in lines.items()]


def rings(arms: Sequence[Arm]) -> list[Entry]:
    """What a ring means, where there is one."""
    return [Entry("several networks together", MUTED, ringed=True)] if any(map(ringed, arms)) else []
