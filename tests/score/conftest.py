"""Fixtures of the scores' tests."""

import sys
from types import ModuleType

import pytest


@pytest.fixture(scope="session")
def scoringrules() -> ModuleType:
    """The library on NumPy: where it finds Numba it compiles itself as it is imported, for seconds."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "numba", None)
        import scoringrules
    return scoringrules
