"""A network of 1.1 thousand million parameters on a machine that holds it once."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.study


def said(what: str, folder: Path) -> str:
    script = Path(__file__).with_name("low_memory.py")
    done = subprocess.run([sys.executable, str(script), what, str(folder)], capture_output=True, text=True, check=True)
    return done.stdout


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("transformers", reason="transformers is not installed")
    folder = tmp_path_factory.mktemp("large") / "net"
    said("make", folder)
    return folder


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the process's size is read from /proc")
@pytest.mark.parametrize(("what", "models", "layers"), [("load", 0, 1), ("draw", 1, 1), ("export", 0, 2)])
def test_at_most_the_model_once_and_a_layer(large: Path, what: str, models: int, layers: int) -> None:
    found = json.loads(said(what, large))
    print(f"\n{what:7} {found['peak'] / 1e6:6.0f} MB; the model has {found['model'] / 1e6:.0f} MB, its largest tensor "
          f"{found['layer'] / 1e6:.0f} MB")  # fmt: skip
    assert found["model"] > 2e9
    assert found["peak"] < models * found["model"] + layers * found["layer"]
