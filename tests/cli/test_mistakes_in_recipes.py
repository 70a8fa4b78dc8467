"""Recipes and folders of runs with a mistake: one message, and nothing is written."""

from __future__ import annotations

from pathlib import Path

import pytest

from cli.conftest import Pluria
from cli.user import left, refused


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("arms.0.method=low_precisoin", "unknown method 'low_precisoin'; did you mean 'low_precision'?"),
        ("arms.0.fromat=int5", "method 'low_precision' has no option 'fromat'; did you mean 'format'?"),
        ("arms.0.format=int9", "INT-9 stratified × 2: unknown number format 'int9'"),
        ("arms.0.refresh=maybe", "arms.0.refresh: "),
        ("data.reader=array", "no reader 'array'; did you mean 'arrays'?"),
        ("data.rowz=3", "unknown key data.rowz; did you mean 'rows'?"),
        ("network.model=smal_cnn", "did you mean 'small_cnn'?"),
        ("network.checkpoint=none.pt", "No such file or directory (none.pt); "),
        ("network.checkpoint=null", "the network has no checkpoint"),
        ("device=gpu", "unknown device 'gpu'"),
        ("views=[flip]", "views (flip) are of images [N, C, H, W]; inputs are [20, 12]"),
        ("seeds", "--set takes key=value"),
    ],
)
def test_recipes(here: Path, pluria: Pluria, change: str, said: str) -> None:
    before = left(here)
    options = ["--set", change, *(["--set", "controls=true"] if change.startswith("views") else [])]
    refused(pluria("run", "recipe.yaml", "--out", "out", *options), said)
    refused(pluria("run", "recipe.yaml", "--out", "out", "--dry-run", *options), said)
    assert left(here) == before


def test_recipes_that_cannot_be_read(here: Path, pluria: Pluria) -> None:
    Path("bad.yaml").write_text("a: [1")
    refused(pluria("run", "bad.yaml"), "bad.yaml is not valid YAML")
    refused(pluria("run", "none.yaml"), "cannot read the recipe none.yaml: No such file or directory")
    refused(pluria("run", "net.safetensors"), "net.safetensors")


def test_folders_without_figures(here: Path, pluria: Pluria) -> None:
    refused(pluria("report", "none"), "none holds no figures.json; `pluria run` writes one")
    Path("figures.json").write_text("{")
    refused(pluria("report", "."), "figures.json cannot be read")
    for text in ("{}", "[]", "3", '{"arms": []}'):
        Path("figures.json").write_text(text)
        refused(pluria("report", "."), "figures.json holds no figures of a run; `pluria run` writes them")
