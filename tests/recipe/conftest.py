"""Fixtures of the recipes' tests."""

from pathlib import Path

import pytest

from recipe.tiny import write_all


@pytest.fixture
def task(tmp_path: Path) -> Path:
    """A folder with a checkpoint and rows."""
    return write_all(tmp_path)
