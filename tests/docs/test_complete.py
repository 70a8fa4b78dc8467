"""The pages name everything there is: public names, commands and their options, keys of a recipe, formats, methods."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import pytest
import typer

import pluria
from pluria.cli import app
from pluria.numbers.format import FORMATS
from pluria.recipe.catalogue import CATALOGUE, methods
from pluria.recipe.parts import Data, Members, Network, Training
from pluria.recipe.pools import POOLS
from pluria.recipe.schema import Arm, Recipe
from pluria.search import Budget
from pluria.zoo import NETWORKS, READERS

DOCS = Path(__file__).resolve().parents[2] / "docs"
PACKAGES = (
    "sample",
    "train",
    "merge",
    "align",
    "check",
    "predict",
    "pool",
    "score",
    "store",
    "language",
    "search",
    "wrap",
)


def words(page: str) -> set[str]:
    """Everything that stands between backticks on a page, and the members that autodoc is asked for."""
    text = (DOCS / page).read_text(encoding="utf-8")
    listed = ", ".join(re.findall(r":members: (.*)", text)).split(", ")
    return {*re.findall(r"`([^`\n]+)`", text), *listed}


@pytest.mark.parametrize("package", PACKAGES)
def test_every_public_name_is_on_the_reference_page(package: str) -> None:
    public = importlib.import_module(f"pluria.{package}").__all__
    assert set(public) - words("api.md") == set()


def test_every_name_at_the_top_is_on_the_reference_page() -> None:
    assert set(pluria.__all__) - words("api.md") == set()


def test_every_command_and_option_is_on_the_command_page() -> None:
    found = words("cli.md")
    for name, command in typer.main.get_command(app).commands.items():  # type: ignore[attr-defined]
        assert f"pluria {name}" in found
        for option in command.params:
            for flag in option.opts:
                # An argument has no dashes; the block that shows how a command is called names its options as well.
                assert not flag.startswith("--") or flag in found or f"[{flag}" in (DOCS / "cli.md").read_text(), flag


@pytest.mark.parametrize("model", [Recipe, Network, Training, Members, Data, Arm])
def test_every_key_is_on_the_recipe_page(model: type) -> None:
    assert set(model.model_fields) - words("recipes.md") == set()  # type: ignore[attr-defined]


def test_every_budget_and_pool_is_on_its_page() -> None:
    assert set(Budget.model_fields) - words("searching.md") == set()
    assert set(POOLS) - words("recipes.md") == set()


def test_every_arm_and_option_is_on_the_recipe_page() -> None:
    found = words("recipes.md")
    rows = [row for row in methods("sample") if row.maker]
    assert {row.name for row in rows} - found == set()
    assert {name for row in rows for name in row.options()} - found == set()
    assert {*NETWORKS, *READERS} - found == set()
    trainings = [row for row in methods("train") if row.maker]
    assert {row.name for row in trainings} - found == set()
    assert {name for row in trainings for name in row.options()} - found == set()


def test_every_format_and_method_has_its_page() -> None:
    formats = {name for name in FORMATS if not name.startswith("int")}
    assert formats - words("numbers.md") == set()
    text = {
        verb: (DOCS / f"{verb}.md").read_text(encoding="utf-8")
        for verb in ("sample", "train", "merge", "align", "pool")
    }
    text["fit"], text["look"] = text["pool"], text["train"] + (DOCS / "score.md").read_text(encoding="utf-8")
    assert [row.name for row in CATALOGUE if row.maker is None and row.name not in text[row.verb]] == []


def test_a_name_that_is_missing_is_found() -> None:
    assert {"low_precision", "no_such_name"} - words("api.md") == {"no_such_name"}
