"""A finished search, shared."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pluria.search import read_search, search
from search.tiny import pictures


@pytest.fixture(scope="session")
def asked(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The plain recipe of the little pictures, with its files."""
    return pictures(tmp_path_factory.mktemp("pictures"))


@pytest.fixture(scope="session")
def done(asked: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """The folder of a finished search and what it found; not to be changed."""
    out = tmp_path_factory.mktemp("searched") / "out"
    recipe, budget, _ = read_search(asked, forwards=80)
    return out, search(recipe, budget, out)
