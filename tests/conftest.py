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


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--keep", type=Path, metavar="FOLDER", help="keep what each module prints as a text file there")


def pytest_configure(config: pytest.Config) -> None:
    folder: Path | None = config.getoption("--keep")
    if folder is not None:
        from study.kept import Kept

        config.pluginmanager.register(Kept(folder))
