"""Methods of training and ways to look have a quick start of at most eight lines, which runs behind the first block."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from docs.pages import blocks
from pluria.recipe.catalogue import methods

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "quickstarts.md").read_text(encoding="utf-8")
MOST = 8
NAMES = [method.name for verb in ("train", "look") for method in methods(verb)]


def starts(page: str) -> dict[str, list[str]]:
    """The Python blocks under each heading of the third rank."""
    parts = re.split(r"^#+ ", page, flags=re.M)[1:]
    return {part.partition("\n")[0]: [block.text for block in blocks(part) if block.kind == "python"] for part in parts}


def lines(block: str) -> int:
    return sum(bool(line.strip()) for line in block.splitlines())


def test_every_method_has_one() -> None:
    found = starts(PAGE)
    assert [name for name in NAMES if not found.get(name)] == []
    assert {name: lines(block) for name in NAMES for block in found[name] if lines(block) > MOST} == {}
    assert [name for name in NAMES if not any(name in block for block in found[name])] == []


@pytest.mark.parametrize("name", NAMES)
def test_it_runs_by_itself(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for block in starts(PAGE)[name]:
        names: dict[str, Any] = {"__name__": "page"}
        exec(blocks(PAGE)[0].text, names)
        exec(block, names)


def test_resumed_runs_of_the_page_meet_the_same_batches_and_losses() -> None:
    for name in ("distillation_loss", "ens_loss"):
        names: dict[str, Any] = {"__name__": "page"}
        exec(blocks(PAGE)[0].text, names)
        exec(starts(PAGE)[name][0], names)
        if name == "ens_loss":
            # The loss of a step is that of its number, which a resumed run is told.
            assert names["at"] == {"step": names["length"]}
        else:
            one, other = (names["told_batches"](1) for _ in range(2))
            assert all(a[0].equal(b[0]) and a[1].equal(b[1]) for a, b in zip(one, other, strict=True))


def test_a_method_without_one_is_seen() -> None:
    page = "# All\n\n### SWA\n\n```python\nx = 1\n\ny = 2\n```\n\n### EMA\n\n### SWAG\n\n```python\nSWAG\n```\n"
    found = starts(page)
    assert (found["EMA"], lines(found["SWA"][0]), "SWA" in found["SWA"][0]) == ([], 2, False)
