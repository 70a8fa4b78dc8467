"""Plain-text docstrings become reStructuredText with the same words."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

FILE = Path(__file__).resolve().parents[2] / "docs" / "docstrings.py"


@pytest.fixture(scope="module")
def docstrings() -> ModuleType:
    spec = importlib.util.spec_from_file_location("docstrings", FILE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def example(first: int, second: int) -> None:
    """Only its signature counts."""


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ("One |x| of `a_b`, a*.", r"One \|x\| of ``a_b``, a\*."),
        ("Formula:\n\n    y = x\n      + 1", "Formula:\n\n.. code-block:: text\n\n    y = x\n      + 1"),
        (
            "first    the one\n         and only\nsecond   another",
            ":param first: the one and only\n:param second: another",
        ),
        ("first, second   both", ":param first: both\n:param second: both"),
        ("third   not an argument", "``third``\n    not an argument"),
        ("two words   not an argument", "two words\n    not an argument"),
        ("mean   a / b     median   c", ".. code-block:: text\n\n    mean   a / b     median   c"),
        (">>> 1 + 1\n2", ">>> 1 + 1\n2"),
    ],
)
def test_process(docstrings: ModuleType, given: str, wanted: str) -> None:
    lines = given.split("\n")
    docstrings.process(None, "function", "example", example, None, lines)
    assert "\n".join(lines).strip() == wanted
