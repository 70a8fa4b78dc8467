"""The table as a terminal, Markdown and CSV show it."""

from __future__ import annotations

import csv
import io
from typing import Any

import pytest
from rich.cells import cell_len
from rich.console import Console

from pluria.report.tables import comma_separated, legend, markdown, plain, table
from report.runs import HOSTILE, alone, hostile, renamed


def _shown(figures: dict[str, Any], **options: Any) -> str:
    stream = io.StringIO()
    Console(file=stream, width=160, force_terminal=True, **options).print(table(figures, width=160))
    return stream.getvalue()


@pytest.mark.parametrize("width", [40, 60, 80, 100, 120, 160, 200, 240])
def test_no_line_is_wider_than_the_terminal(figures: dict[str, Any], width: int) -> None:
    lines = plain(figures, width=width).splitlines()
    assert max(map(cell_len, lines)) <= width


def test_wider_terminals_show_more(figures: dict[str, Any]) -> None:
    heads = [plain(figures, width=width) for width in (60, 80, 120, 200)]
    counts = [len([word for word in ("raw", "error", "interval", "K·b", "disagree") if word in text]) for text in heads]
    assert counts == sorted(counts)
    assert counts[0] < counts[-1] == 5
    assert all("after T" in text for text in heads)


def test_every_arm_is_there_and_controls_come_first(figures: dict[str, Any]) -> None:
    text = plain(figures, width=240)
    places = {arm["name"]: text.index(f"  {arm['name']} ") for arm in figures["arms"]}
    split = text.index("     drawn")
    assert all((place < split) == arm["control"] for arm, place in zip(figures["arms"], places.values(), strict=True))
    assert f"▸  {figures['main']}" in text


def test_plain_has_no_control_characters(figures: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    text = plain(figures, width=120)
    assert "\x1b" not in text
    assert text == plain(figures, width=120)


def test_no_color_is_respected(figures: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    changed = renamed(figures, "", "")
    changed["arms"][-1]["difference"]["nll_scaled"] |= {"estimate": 0.5, "low": 0.4, "high": 0.6}
    assert "\x1b[31m" in _shown(changed, color_system="standard")
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b[31m" not in _shown(changed, color_system="standard")


def test_brackets_in_names_are_no_markup(figures: dict[str, Any]) -> None:
    text = plain(renamed(figures, figures["main"], "[bold]x[/bold] [red]"), width=200)
    assert "[bold]x[/bold] [red]" in text


def test_a_sure_gain_is_marked(figures: dict[str, Any]) -> None:
    changed = renamed(figures, "", "")
    assert "★ beats" not in plain(alone(figures))
    changed["arms"][-1]["difference"]["nll_scaled"] |= {"estimate": -0.5, "low": -0.6, "high": -0.4}
    line = next(line for line in plain(changed).splitlines() if changed["arms"][-1]["name"] in line)
    assert "★" in line


def test_markdown_is_one_table_and_a_section_for_each_further_one(figures: dict[str, Any]) -> None:
    for given, count in ((figures, 3), (hostile(figures), 3), (alone(figures), 0)):
        parts = markdown(given).split("\n## ")
        assert len(parts) == 1 + count
        assert len(parts[0].splitlines()) == 2 + len(given["arms"])
        for part in parts:
            rows = [line for line in part.splitlines() if line.startswith("|")]
            assert len({line.replace("\\|", "").count("|") for line in rows}) == 1
            assert "<script>" not in part


def test_operations_are_left_out_where_there_is_no_room(figures: dict[str, Any]) -> None:
    assert "GFLOPs" not in plain(figures, width=120)
    assert "GFLOPs" in plain(figures, width=300)
    assert "GFLOPs" in markdown(figures)


def test_csv_keeps_every_digit(figures: dict[str, Any]) -> None:
    rows = list(csv.DictReader(io.StringIO(comma_separated(renamed(figures, figures["main"], HOSTILE)))))
    for row, arm in zip(rows, figures["arms"], strict=True):
        assert float(row["nll_scaled"]) == arm["scaled"]["nll"]
        assert float(row["ece"]) == arm["scores"]["ece"]
        assert float(row["seconds"]) == arm["cost"]["seconds"]
        assert int(row["flops"]) == arm["cost"]["flops"]
    assert rows[0]["difference"] == ""
    assert any(row["name"] == HOSTILE for row in rows)


def test_controls_that_were_switched_off_are_told(figures: dict[str, Any]) -> None:
    told = "The recipe switched the controls off"
    assert told not in legend(figures)
    assert told in legend({**figures, "recipe": {**figures["recipe"], "controls": False}})
    assert told not in legend({**figures, "recipe": {}}), "a run that was kept before there was a choice"


def test_figure_rows_that_calibrated_are_no_others(figures: dict[str, Any]) -> None:
    assert f"every figure comes from {figures['rows']['figures']} others." in legend(figures)
    rows = {"calibration": 60, "figures": 60, "twice": 7}
    assert "every figure comes from 60 rows, 7 of them calibration rows too." in legend({**figures, "rows": rows})
