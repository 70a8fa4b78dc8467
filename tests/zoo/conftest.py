"""Fixtures of the zoo's tests."""

import subprocess
import sys
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def official_layouts(real_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the real image sets in their official layouts (`cifar-10-batches-bin` and so on)."""
    out = tmp_path_factory.mktemp("official")
    subprocess.run([sys.executable, str(real_data / "unpack.py"), str(out)], check=True, capture_output=True)
    return out
