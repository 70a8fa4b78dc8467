"""Fixtures shared by all tests."""

from pathlib import Path

import pytest

REAL = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Folder of real data sets and networks by others, which lies beside a checkout that has it."""
    if not REAL.is_dir():
        pytest.skip(f"the real data sets are not at {REAL}")
    return REAL
