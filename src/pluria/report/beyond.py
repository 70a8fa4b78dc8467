"""What arms are worth on shifted rows, and how well they tell rows of no known class: one table each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pluria.report.records import Arm, Figures
from pluria.report.sheet import Cell, Column, Sheet, extreme, sheet, spread

KINDS = {
    "entropy": "entropy",
    "entropy_scaled": "entropy after T",
    "mutual_information": "mutual information",
}
BOLD = "Bold is the best figure of its column, which does not make it surely the best."
AGAINST = "Δ is the arm minus {}, on the same rows, with the 95% interval of a paired bootstrap."


def shifted(figures: Figures) -> Sheet | None:
    """NLL and error on every shifted set; None where no arm was held against one."""
    arms = [arm for arm in figures["arms"] if arm.get("shifted")]
    if not arms:
        return None
    columns = []
    for name in arms[0]["shifted"]:
        losses, errors = [_loss(arm, name) for arm in arms], [_error(arm, name) for arm in arms]
        columns.append(Column(name, "NLL after T", "raw", extreme(losses, min)))
        columns += _against(figures, arms, "shifted", name, 4)
        columns.append(Column(name, "error", "", extreme(errors, min)))
    lead = (
        "Changed copies of the figure rows; the recipe says how each is changed. The temperature is that of clean "
        f"calibration rows: nobody knows the shift beforehand. {BOLD} {AGAINST.format(figures['reference'])} ± is the "
        "deviation over seeds."
    )
    return sheet(figures, "shifted", "Under shift", lead, arms, columns)


def outside(figures: Figures) -> Sheet | None:
    """AUROC and FPR95 of every uncertainty on every outside set; None where no arm was held against one."""
    arms = [arm for arm in figures["arms"] if arm.get("outside")]
    if not arms:
        return None
    columns = []
    for name in arms[0]["outside"]:
        for kind in [kind for kind in KINDS if any(kind in arm["outside"][name] for arm in arms)]:
            cells = [_detected(arm, name, kind) for arm in arms]
            columns.append(Column(name, f"AUROC by {KINDS[kind]}", "FPR95", extreme(cells, max)))
            columns += _against(figures, arms, "outside", name, 3) if kind == "entropy_scaled" else []
    lead = (
        "How well uncertainty tells these rows from the figure rows. AUROC is the chance that an unknown row is the "
        "more uncertain of two; 0.5 is a guess. FPR95, in small, is the share of known rows that are taken for unknown "
        f"where 95% of the unknown are found. {BOLD} {AGAINST.format(figures['reference'])} ± is the deviation over "
        "seeds."
    )
    return sheet(figures, "outside", "Rows of no known class", lead, arms, columns)


def _against(figures: Figures, arms: list[Arm], part: str, name: str, places: int) -> list[Column]:
    """The difference to full precision and its interval; no column for figures that were stored without it."""
    others = [arm for arm in arms if arm["name"] != figures["reference"]]
    gaps = {arm["name"]: arm["difference"].get(part, {}).get(name) for arm in others}
    if not gaps or None in gaps.values():
        return []
    return [Column(name, "Δ", "interval", tuple(_gap(gaps.get(arm["name"]), places) for arm in arms))]


def _gap(gap: Mapping[str, float] | None, places: int) -> Cell:
    if gap is None:
        return Cell()
    estimate, low, high = (f"{gap[key]:+.{places}f}".replace("-", "−") for key in ("estimate", "low", "high"))
    return Cell(estimate, f"[{low}, {high}]", round(gap["estimate"], places))


def _loss(arm: Arm, name: str) -> Cell:
    mean, deviation = _both(arm, "shifted", name)
    raw, after = (spread(mean[part]["nll"], deviation and deviation[part]["nll"], 4) for part in ("scores", "scaled"))
    return Cell(after, raw, round(mean["scaled"]["nll"], 4))


def _error(arm: Arm, name: str) -> Cell:
    mean, deviation = _both(arm, "shifted", name)
    wrong = mean["scores"]["error"]
    return Cell(spread(100 * wrong, deviation and 100 * deviation["scores"]["error"], 2, "%"), "", round(wrong, 4))


def _detected(arm: Arm, name: str, kind: str) -> Cell:
    mean, deviation = _both(arm, "outside", name)
    if kind not in mean:
        return Cell()
    own, sd = mean[kind], deviation and deviation[kind]
    rate = spread(100 * own["fpr95"], sd and 100 * sd["fpr95"], 1, "%")
    return Cell(spread(own["auroc"], sd and sd["auroc"], 3), rate, round(own["auroc"], 3))


def _both(arm: Arm, part: str, name: str) -> tuple[Mapping[str, Any], Any]:
    """Means over seeds, and deviations; None for these where there is one seed."""
    return arm[part][name], arm["spread"][part][name] if len(arm["seeds"]) > 1 else None
