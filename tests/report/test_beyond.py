"""Tables of shifted and of outside rows: what is shown comes from the figures."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from pluria.report.beyond import outside, shifted
from pluria.report.sheet import Sheet
from report.runs import HOSTILE, alone, hostile


def _row(sheet: Sheet | None, name: str) -> list[tuple[str, str]]:
    assert sheet is not None
    return [(cell.text, cell.beside) for cell in next(cells for one, _, cells in sheet.rows if one == name)]


@pytest.fixture
def known(figures: dict[str, Any]) -> dict[str, Any]:
    """Full precision and the main arm with figures that can be read off."""
    found = copy.deepcopy(figures)
    plain, main = (next(a for a in found["arms"] if a["name"] == found[n]) for n in ("reference", "main"))
    for arm, loss, rate in ((plain, 0.5, 0.875), (main, 0.25, 0.625)):
        pair = {"scores": {"nll": 2 * loss, "error": loss}, "scaled": {"nll": loss, "error": loss}}
        kinds = {kind: {"auroc": rate, "fpr95": 0.5} for kind in arm["outside"]["other"]}
        arm |= {"shifted": {"dark": pair}, "outside": {"other": kinds}}
        arm["difference"] = {"nll_scaled": arm["difference"]["nll_scaled"]}
        arm["spread"] |= {"shifted": {"dark": pair}, "outside": {"other": kinds}}
    return found | {"arms": [plain, main]}


def test_losses_and_errors_under_shift(known: dict[str, Any]) -> None:
    sheet = shifted(known)
    assert _row(sheet, known["reference"]) == [("0.5000", "1.0000"), ("50.00%", "")]
    assert _row(sheet, known["main"]) == [("0.2500 ±0.2500", "0.5000 ±0.5000"), ("25.00 ±25.00%", "")]
    assert sheet is not None
    assert [[cell.marked for cell in cells] for _, _, cells in sheet.rows] == [[False, False], [True, True]]


def test_rows_of_no_known_class(known: dict[str, Any]) -> None:
    sheet = outside(known)
    assert _row(sheet, known["reference"]) == [("0.875", "50.0%"), ("0.875", "50.0%"), ("–", "")]
    assert _row(sheet, known["main"]) == [("0.625 ±0.625", "50.0 ±50.0%")] * 3
    assert sheet is not None
    assert [[cell.marked for cell in cells] for _, _, cells in sheet.rows] == [[True, True, False], [False] * 3]
    assert [column.title for column in sheet.columns][-1] == "other: AUROC by mutual information (FPR95)"


def test_every_arm_that_has_them_and_every_set(figures: dict[str, Any]) -> None:
    for made, part in ((shifted(figures), "shifted"), (outside(figures), "outside")):
        assert made is not None
        arms = [arm for arm in figures["arms"] if part in arm]
        assert [name for name, _, _ in made.rows] == [arm["name"] for arm in arms]
        assert 0 < len(arms) < len(figures["arms"]), "candidates for the best single model have none"
        assert [group for group, _ in made.groups] == list(arms[0][part])
        assert [main for _, main, _ in made.rows].count(True) == 1


def test_nothing_where_there_is_nothing(figures: dict[str, Any]) -> None:
    assert shifted(alone(figures)) is None
    assert outside(alone(figures)) is None


def test_names_of_sets_stay_text(figures: dict[str, Any]) -> None:
    made = shifted(hostile(figures))
    assert made is not None
    assert made.columns[0].group == f"{HOSTILE}0"


def test_differences_have_a_column_where_they_are_stored(known: dict[str, Any]) -> None:
    gap = {"estimate": -0.25, "low": -0.5, "high": 0.125, "level": 0.95}
    for arm in known["arms"]:
        arm["difference"] |= {"shifted": {"dark": gap}, "outside": {"other": gap}}
    assert _row(shifted(known), known["main"])[1] == ("−0.2500", "[−0.5000, +0.1250]")
    assert _row(shifted(known), known["reference"])[1] == ("–", "")
    assert _row(outside(known), known["main"])[2] == ("−0.250", "[−0.500, +0.125]")
    for arm in known["arms"]:
        arm["difference"] = {"nll_scaled": arm["difference"]["nll_scaled"]}
    assert len(_row(shifted(known), known["main"])) == 2
