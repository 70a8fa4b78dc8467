"""What happens where scikit-learn or transformers is missing."""

import subprocess
import sys

import pytest

import pluria
from pluria import wrap


def told(statement: str) -> str:
    """What a fresh interpreter without the extras prints."""
    code = f"import sys; sys.modules.update(sklearn=None, transformers=None)\n{statement}"
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout


def test_names_are_there_without_the_extras() -> None:
    assert told("from pluria import *; print(PluriaClassifier.__name__)").strip() == "PluriaClassifier"


@pytest.mark.parametrize(
    ("call", "extra"),
    [
        (
            "pluria.PluriaClassifier()",
            "PluriaClassifier needs scikit-learn, which is not installed: pip install 'pluria[sk",
        ),
        ("pluria.PluriaRegressor(epochs=3)", "PluriaRegressor needs scikit-learn"),
        ("wrap.ensemble_pipeline('text-classification', '.')", "pip install 'pluria[hf]'"),
    ],
)
def test_what_is_missing_is_said(call: str, extra: str) -> None:
    code = f"import pluria\nfrom pluria import wrap\ntry:\n    {call}\nexcept ImportError as error:\n    print(error)"
    assert extra in told(code)


def test_names_that_are_not_there() -> None:
    with pytest.raises(AttributeError, match=r"pluria\.wrap"):
        _ = wrap.PluriaCluster
    assert set(wrap.__all__) <= set(dir(wrap))
    assert wrap.PluriaClassifier is pluria.PluriaClassifier
