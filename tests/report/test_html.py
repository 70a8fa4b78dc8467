"""The page: whole, escaped, stable, and in need of nothing else."""

from __future__ import annotations

import itertools
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from pluria.report.html import page, write_report
from report.runs import HOSTILE, alone, crowded, deep, hostile

VOID = {"meta", "link", "img", "br"}


class Page(HTMLParser):
    """Tags with their attributes in order; a tag that closes another than the last one opened is a mistake."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.words: list[str] = []
        self.feed(text)
        self.close()
        if self.open:
            raise AssertionError(f"never closed: {self.open}")

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            raise AssertionError(f"</{tag}> closes nothing")

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    def named(self, tag: str) -> list[dict[str, str | None]]:
        """Attributes of every tag of this name."""
        return [attributes for name, attributes in self.tags if name == tag]


@pytest.mark.parametrize("broken", ["<p><b>x</p>", "<div>", "</p>"])
def test_the_helper_finds_broken_pages(broken: str) -> None:
    with pytest.raises(AssertionError):
        Page(broken)


@pytest.fixture(scope="module")
def text(figures: dict[str, Any]) -> str:
    return page(figures)


@pytest.fixture(scope="module")
def attack(figures: dict[str, Any]) -> str:
    return page(hostile(figures))


@pytest.fixture
def words_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pages without figures, for tests of what stands around them."""
    monkeypatch.setattr("pluria.report.html.plots", lambda figures: [])
    monkeypatch.setattr("pluria.report.html.noise_plot", lambda figures: None)


def test_same_figures_same_bytes(figures: dict[str, Any], text: str, tmp_path: Path) -> None:
    write_report(figures, tmp_path / "deep" / "report.html")
    made = (tmp_path / "deep" / "report.html").read_bytes()
    assert made == text.encode()
    assert len(made) < 1_500_000
    assert b"\r" not in made


def test_the_order_of_the_page(figures: dict[str, Any], text: str) -> None:
    marks = [
        f"<h1>{figures['title']}</h1>", 'class="gain"', 'class="arms"', 'id="nll-members"', 'class="examples"',
        'id="noise"', figures["command"], "How to read this",
    ]  # fmt: skip
    places = [text.index(mark) for mark in marks]
    assert places == sorted(places)


def test_well_formed_with_every_part(figures: dict[str, Any], text: str) -> None:
    found = Page(text)
    assert len([a for a in found.named("svg") if a.get("role") == "img"]) == 7
    assert len(found.named("figure")) == 7
    assert len(found.named("img")) == len(figures["disagreed"])
    assert figures["title"] in "".join(found.words)
    assert all(arm["name"].replace(" × ", " ×\u00a0") in "".join(found.words) for arm in figures["arms"])


def test_accessible(text: str) -> None:
    found = Page(text)
    assert all(attributes.get("scope") for attributes in found.named("th"))
    assert all(attributes.get("alt") for attributes in found.named("img"))
    assert all(a.get("aria-label") or a.get("aria-hidden") == "true" for a in found.named("svg"))
    assert found.named("html") == [{"lang": "en"}]
    levels = [int(tag[1]) for tag, _ in found.tags if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after - before <= 1 for before, after in itertools.pairwise(levels))


def test_ids_are_unique_and_references_lead_somewhere(text: str) -> None:
    found = Page(text)
    ids = [attributes["id"] for _, attributes in found.tags if "id" in attributes]
    used = [a["href"][1:] for tag, a in found.tags if tag == "use" and a.get("href")]
    labels = [a["aria-labelledby"] for _, a in found.tags if "aria-labelledby" in a]
    assert len(ids) == len(set(ids))
    assert set(used) | set(labels) <= set(ids)


@pytest.mark.parametrize("which", ["text", "attack"])
def test_nothing_is_fetched_and_nothing_runs(which: str, request: pytest.FixtureRequest) -> None:
    made = request.getfixturevalue(which)
    found = Page(made)
    assert not found.named("script")
    links = [a[name] for _, a in found.tags for name in ("src", "href") if a.get(name)]
    assert all(link and link.startswith(("data:", "#")) for link in links)
    assert "url(" not in re.sub(r"url\(#[\w-]+\)", "", made)
    assert not [name for _, a in found.tags for name in a if name.startswith("on")]


def test_every_text_is_escaped(figures: dict[str, Any], attack: str) -> None:
    found = Page(attack)
    assert "<script" not in attack
    assert HOSTILE.strip() in " ".join(found.words)
    assert [tag for tag, _ in found.tags].count("b") == len(figures["disagreed"])
    assert "example.com" not in attack


def test_several_networks(several: dict[str, Any]) -> None:
    found = Page(page(several))
    assert len(found.named("figure")) == 7
    assert f"From {several['reference']} to {several['main']}" in "".join(found.words)


@pytest.mark.parametrize("change", [alone, lambda f: crowded(deep(f, 200), 20)])
def test_unusual_runs(figures: dict[str, Any], change: Any) -> None:
    made = page(change(figures))
    found = Page(made)
    assert len(made) < 1_500_000
    assert not [n for n, a in found.tags if n in ("path", "use") and "nan" in (a.get("d") or a.get("x") or "")]
    assert "None" not in re.sub(r"<style>.*?</style>", "", made, flags=re.S)


@pytest.mark.usefixtures("words_only")
def test_further_tables_stand_only_where_there_are_figures(figures: dict[str, Any]) -> None:
    ids = {a.get("id") for _, a in Page(page(figures)).tags}
    assert {"shifted", "outside", "together"} <= ids
    assert not {"shifted", "outside", "together"} & {a.get("id") for _, a in Page(page(alone(figures))).tags}


def test_how_tensors_of_a_compensated_arm_were_rounded(
    several: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pluria.report.html.plots", lambda figures: [])
    assert "compensated</td>" not in page(several)
    main = next(arm["name"] for arm in several["arms"] if arm["method"] == "compensated")
    first, *rest = several["noise"]
    made = {**several, "main": main, "noise": [{**first, "compensated": True, "nearest": None}, *rest]}
    found = page(made)
    assert found.count(">compensated</td>") == 1
    assert found.count(">plain</td>") == len(rest)
    assert "<td>–</td>" in found


@pytest.mark.usefixtures("words_only")
def test_inputs_that_are_no_pictures(figures: dict[str, Any]) -> None:
    told = [{**one, "picture": None} for one in figures["disagreed"]]
    found = Page(page({**figures, "disagreed": told}))
    assert not found.named("img")
    assert f"row {told[0]['row']}" in "".join(found.words)


@pytest.mark.usefixtures("words_only")
def test_warnings_stand_above_the_table(figures: dict[str, Any]) -> None:
    made = page({**figures, "warnings": ["members are alike"]})
    assert made.index("members are alike") < made.index('class="arms"')
    assert 'class="warnings"' not in page({**figures, "warnings": []})


@pytest.mark.usefixtures("words_only")
def test_a_sure_difference_colours_its_tile(figures: dict[str, Any]) -> None:
    changed = crowded(figures, 0)
    main = next(arm for arm in changed["arms"] if arm["name"] == changed["main"])
    main["difference"]["nll_scaled"] |= {"estimate": -0.5, "low": -0.6, "high": -0.4}
    assert 'class="tile better"' in page(changed)
    assert "★" in page(changed)
