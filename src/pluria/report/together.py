"""Several labels scored at once: each arm's joint score beside the control it must beat."""

from __future__ import annotations

from pluria.report.records import Arm, Figures
from pluria.report.series import full
from pluria.report.sheet import Cell, Column, Sheet, sheet

PLACES = 4


def together(figures: Figures) -> Sheet | None:
    """Joint scores of the reference and of every arm of several members; None where there is none.

    repeated   counts only below the reference's all-epistemic score      distinct   only below the arm's own marginal
    """
    reference = full(figures)
    arms = [arm for arm in figures["arms"] if arm["joint"] and (arm is reference or arm["cost"]["forwards"] > 1)]
    if reference not in arms or len(arms) < 2:
        return None
    bar = reference["joint"].get("repeated_all_epistemic")
    columns = [
        *_pair("ten draws of two examples", "repeated", arms, [bar] * len(arms)),
        *_pair("ten different examples", "distinct", arms, [arm["joint"].get("distinct_marginal") for arm in arms]),
    ]
    lead = (
        "Ten labels are scored at once, in nats for each label; lower is better. Where examples repeat, calling all "
        f"uncertainty epistemic pays by itself: ✓ stands only below what {reference['name']} gets in that way. Where "
        "all differ, ✓ stands only below the arm's own marginal score, which is the joint score of a single model. "
        "A ✓ says that the same members are right on several examples, not that the arm is the better one; no interval "
        "stands behind it."
    )
    return sheet(figures, "together", "Several labels at once", lead, arms, columns)


def _pair(group: str, name: str, arms: list[Arm], bars: list[float | None]) -> list[Column]:
    """The joint score and what it must stay below, as both are shown."""
    cells = [_judged(arm["joint"].get(name), bar) for arm, bar in zip(arms, bars, strict=True)]
    return [
        Column(group, "joint", "", tuple(cells)),
        Column(group, "to beat", "", tuple(_shown(bar) for bar in bars)),
    ]


def _judged(value: float | None, bar: float | None) -> Cell:
    """Rounding error in the last bits is no gain: the digits that are shown must differ."""
    cell = _shown(value)
    if value is None or bar is None or round(value, PLACES) >= round(bar, PLACES):
        return cell
    return Cell(f"✓ {cell.text}", value=value, marked=True)


def _shown(value: float | None) -> Cell:
    return Cell() if value is None else Cell(f"{value:.{PLACES}f}", value=value)
