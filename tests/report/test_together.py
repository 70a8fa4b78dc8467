"""Several labels at once: a score counts only below its control."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from pluria.report.together import together
from report.runs import alone


def _joint(repeated: float, bar: float, distinct: float, marginal: float) -> dict[str, float]:
    return {"repeated": repeated, "repeated_all_epistemic": bar, "distinct": distinct, "distinct_marginal": marginal}


def _with(figures: dict[str, Any], plain: dict[str, float], main: dict[str, float]) -> dict[str, Any]:
    found = copy.deepcopy(figures)
    for arm in found["arms"]:
        arm["joint"] = {found["reference"]: plain, found["main"]: main}.get(arm["name"], {})
    return found


@pytest.mark.parametrize(
    ("main", "shown"),
    [
        (_joint(0.1, 0.05, 0.3, 0.4), ["✓ 0.1000", "0.2000", "✓ 0.3000", "0.4000"]),
        (_joint(0.25, 0.9, 0.4, 0.3), ["0.2500", "0.2000", "0.4000", "0.3000"]),
        (_joint(0.2, 0.9, 0.3 - 1e-9, 0.3), ["0.2000", "0.2000", "0.3000", "0.3000"]),
        ({"distinct": 0.25}, ["–", "0.2000", "0.2500", "–"]),
    ],
    ids=["both", "its own bar does not count", "rounding error", "infinite"],
)
def test_what_counts(figures: dict[str, Any], main: dict[str, float], shown: list[str]) -> None:
    sheet = together(_with(figures, _joint(0.5, 0.2, 0.5, 0.5), main))
    assert sheet is not None
    rows = {name: [cell.text for cell in cells] for name, _, cells in sheet.rows}
    assert rows == {figures["reference"]: ["0.5000", "0.2000", "0.5000", "0.5000"], figures["main"]: shown}
    assert all(cell.marked == cell.text.startswith("✓") for _, _, cells in sheet.rows for cell in cells)
    assert f"below what {figures['reference']} gets" in sheet.lead


def test_the_reference_and_every_arm_of_several_members(several: dict[str, Any]) -> None:
    sheet = together(several)
    assert sheet is not None
    wanted = [a["name"] for a in several["arms"] if a["cost"]["forwards"] > 1 or a["name"] == several["reference"]]
    assert [name for name, _, _ in sheet.rows] == wanted
    assert "full precision of narrow + wide" in wanted


def test_nothing_without_members_or_without_figures(figures: dict[str, Any]) -> None:
    assert together(alone(figures)) is None
    assert together(_with(figures, {}, _joint(0.1, 0.1, 0.1, 0.1))) is None
    assert together(_with(figures, _joint(0.1, 0.1, 0.1, 0.1), {})) is None
