"""A generated text in colours, for a terminal and as a page."""

from __future__ import annotations

import re
from typing import Any
from xml.etree import ElementTree

import pytest
import torch

from pluria.language import Generated
from pluria.report.words import as_ansi, as_html, band_of

ESCAPE = re.compile(r"\x1b\[[0-9;]*m")


def written(pieces: tuple[str, ...] = (" sure", " so\n", " <b>", " split", ""), **changes: Any) -> Generated:
    figures = torch.tensor([1.0, 0.5, 0.25, 0.0, 1.0][: len(pieces)], dtype=torch.float64)
    values: dict[str, Any] = {
        "prompt": torch.tensor([1]),
        "tokens": torch.arange(len(pieces)),
        "prompt_text": "It is",
        "pieces": pieces,
        "log_probs": (figures * 0.8 + 0.0001).log(),
        "agreement": figures,
        "mutual_information": 1 - figures,
        "members": 8,
        "stopped": True,
    }
    return Generated(**{**values, **changes})


def styles(text: str, word: str) -> str:
    """The codes in front of a word."""
    return text[: text.index(word)].rpartition("\x1b[")[2].partition("m")[0]


@pytest.mark.parametrize(
    ("agreement", "name"),
    [(1.0, "sure"), (0.75, "sure"), (0.7499999999999999, "sure"), (0.74, "unsure"), (0.5, "unsure"), (0.3, "doubtful"),
     (0.25, "doubtful"), (0.125, "split"), (0.0, "split")],
)  # fmt: skip
def test_bands(agreement: float, name: str) -> None:
    assert band_of(agreement).name == name


def test_the_terminal_shows_the_text_whole_and_unsure_words_in_colour() -> None:
    shown = as_ansi(written())
    plain = ESCAPE.sub("", shown)
    assert plain.startswith(
        "It is sure so\n <b> split\n\nfirst choice of: three quarters of the members or more · half"
    )
    assert styles(shown, "It is") == "2"
    assert styles(shown, "so") == "3;38;5;136"
    assert styles(shown, "<b>") == "4;38;5;166"
    assert styles(shown, "split") == "1;4;38;5;160"
    assert styles(shown, "sure").endswith("0")


def test_without_colours_lines_and_weight_remain() -> None:
    shown = as_ansi(written(), colour=False)
    assert "38;5" not in shown
    assert [styles(shown, word) for word in ("so", "<b>", "split")] == ["3", "4", "1;4"]


def test_no_text_steers_the_terminal() -> None:
    shown = as_ansi(written((" \x1b[2J\x07x\r", " [red]b", "\u202eabc", " ja\u200dzwj")))
    plain = ESCAPE.sub("", shown)
    assert "\ufffd[2J\ufffdx\ufffd [red]b\ufffdabc ja\u200dzwj" in plain


def test_lines_are_folded_where_a_width_is_given() -> None:
    plain = ESCAPE.sub("", as_ansi(written((" word",) * 5), width=20))
    assert max(map(len, plain.splitlines())) <= 20


def test_the_page_escapes_every_text() -> None:
    page = as_html(written(prompt_text="<script>alert(1)</script>"), title="<i>")
    assert "<script" not in page
    assert "<i>" not in page
    assert (
        '<span class="doubtful" title="first choice of 25% of the members, pooled probability 20.0%">&lt;b&gt;</span>'
        in page
    )
    assert "5 tokens, 8 members. Mean agreement 55%" in page
    assert page.startswith("<!doctype html>")


def test_the_text_of_the_page_is_the_text() -> None:
    part = as_html(written(), page=False)
    root = ElementTree.fromstring(f"<div>{part}</div>")
    (box,) = (one for one in root if one.get("class") == "written")
    assert "".join(box.itertext()) == "It is sure so\n <b> split"
    assert ":root" not in part


def test_the_least_certain_come_first_with_what_stands_before_them() -> None:
    root = ElementTree.fromstring(f"<div>{as_html(written(), page=False)}</div>")
    rows = ["|".join("".join(cell.itertext()) for cell in row) for row in root.iter("tr")]
    assert rows[1:] == [
        "It is sure so  <b> split|4|0%|< 0.1%|1.000",
        "It is sure so  <b>|3|25%|20.0%|0.750",
        "It is sure so|2|50%|40.0%|0.500",
    ]


def test_a_sure_text_lists_nothing() -> None:
    sure = torch.ones(2, dtype=torch.float64)
    page = as_html(written((" a", " b"), agreement=sure, members=1))
    assert "Least certain" not in page
    assert "2 tokens, 1 member." in page
