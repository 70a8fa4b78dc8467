"""SVG that stands in a page."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest

from pluria.report.ink import INK, SERIES, Entry, canvas, clean, drawing, inline, powers, spread_out


def _simple(name: str = "one", text: str = "words") -> str:
    with drawing():
        figure = canvas(120)
        axes = figure.subplots()
        axes.plot([1, 2, 4], [1, 3, 2], "o-", color=SERIES[0])
        axes.set_title(text)
        return inline(figure, name, f"about {text}")


def test_colours_are_variables_and_size_is_the_pages() -> None:
    svg = _simple()
    root = ElementTree.fromstring(svg)
    assert "stroke: var(--s1)" in svg
    assert "fill: var(--ink)" in svg
    assert "#0a0" not in svg
    assert "font-family" not in svg
    assert root.attrib == {"viewBox": "0 0 360 120", "role": "img", "aria-label": "about words"}


def test_no_styles_metadata_or_unused_ids_leak_into_the_page() -> None:
    root = ElementTree.fromstring(_simple())
    tags = {element.tag for element in root.iter()}
    ids = [element.attrib["id"] for element in root.iter() if "id" in element.attrib]
    assert not tags & {"style", "metadata", "script", "image"}
    assert all(name.startswith("one-") for name in ids)
    assert len(ids) == len(set(ids))


def test_every_reference_has_its_target() -> None:
    root = ElementTree.fromstring(_simple())
    ids = {element.attrib.get("id") for element in root.iter()}
    used = [element.attrib["href"][1:] for element in root.iter() if "href" in element.attrib]
    clips = [element.attrib["clip-path"][5:-1] for element in root.iter() if "clip-path" in element.attrib]
    assert used
    assert clips
    assert set(used) | set(clips) <= ids


def test_same_bytes_whatever_the_users_settings() -> None:
    import matplotlib

    before = _simple()
    with matplotlib.rc_context({"svg.fonttype": "path", "lines.linewidth": 9.0, "axes.grid": False, "font.size": 30}):
        assert _simple() == before
        assert matplotlib.rcParams["lines.linewidth"] == 9.0


@pytest.mark.parametrize("text", ["<script>&", "$a_1$ $", "形 🙂", 'id="x" style="y"', "_hidden", "%d {0}"])
def test_text_stays_text(text: str) -> None:
    root = ElementTree.fromstring(_simple(text=text))
    assert text in [element.text for element in root.iter("text")]


def test_clean_names() -> None:
    assert clean("a\x00b\nc\x1bd") == "a b c d"
    assert clean("x" * 50, 10) == "x" * 9 + "…"
    assert clean("conv1.weight") == "conv1.weight"


def test_powers_of_two() -> None:
    with drawing():
        axes = canvas(120).subplots()
        powers(axes, [1.0, 8.0])
        assert [label.get_text() for label in axes.get_xticklabels()] == ["1", "2", "4", "8"]
        powers(axes, [1.0, 4096.0])
        assert len(axes.get_xticks()) <= 10


def test_wide_ranges_are_logarithmic() -> None:
    with drawing():
        for values, scale in (([0.1, 0.2], "linear"), ([0.1, 2.0], "log"), ([0.0, 2.0], "linear")):
            axes = canvas(120).subplots()
            spread_out(axes, values)
            assert axes.get_yscale() == scale


def test_legend_entries_know_the_pages_colours() -> None:
    assert Entry("x", INK).variable == "var(--ink)"
    assert Entry("x", SERIES[5]).variable == "var(--s6)"
