"""The figures every test of reports starts from."""

from typing import Any

import pytest

from report.runs import several_run, tiny_run


@pytest.fixture(scope="session")
def figures(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Figures of a tiny real run; not to be changed in place."""
    return tiny_run(tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="session")
def several(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Figures of a tiny run of two networks; not to be changed in place."""
    return several_run(tmp_path_factory.mktemp("several"))
