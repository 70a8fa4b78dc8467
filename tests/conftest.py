"""Fixtures shared by all tests, and the options of a run."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

import tracing

REAL = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Folder of real data sets and networks by others, which lies beside a checkout that has it."""
    if not REAL.is_dir():
        pytest.skip(f"the real data sets are not at {REAL}")
    return REAL


@pytest.fixture(scope="session", autouse=True)
def no_flushes() -> Iterator[None]:
    """Files that nobody reads after a power cut do not wait for the disk."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda handle: None)
        yield


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--keep", type=Path, metavar="FOLDER", help="keep what each module prints as a text file there")


def pytest_configure(config: pytest.Config) -> None:
    folder: Path | None = config.getoption("--keep")
    if folder is not None:
        from study.kept import Kept

        config.pluginmanager.register(Kept(folder))
    if config.pluginmanager.hasplugin("_cov"):
        config.pluginmanager.register(tracing)
