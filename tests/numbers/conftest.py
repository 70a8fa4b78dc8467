"""Fixtures of the number systems' tests: the torch reference alone, and the compiled loops as plain Python."""

import importlib.util
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from types import ModuleType

import numba
import pytest

from pluria.numbers import compiled, compiled_philox, compiled_storage, compiled_strata, kernel


@pytest.fixture
def torch_only(monkeypatch: pytest.MonkeyPatch) -> Callable[[], AbstractContextManager[None]]:
    """A context in which nothing is compiled: the reference, words included."""

    @contextmanager
    def context() -> Iterator[None]:
        with monkeypatch.context() as patch:
            patch.setattr(kernel, "available", lambda device: False)
            yield

    return context


@pytest.fixture(scope="session")
def as_python() -> Callable[..., ModuleType]:
    """A module of loops with the compiler switched off, and so those parts that it imports."""

    def again(loops: ModuleType, *parts: ModuleType) -> ModuleType:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(numba.config, "DISABLE_JIT", True)
            for part in (*parts, loops):
                spec = importlib.util.spec_from_file_location("interpreted", str(part.__file__))
                assert spec is not None
                assert spec.loader is not None
                module = importlib.util.module_from_spec(spec)
                patch.setitem(sys.modules, part.__name__, module)
                spec.loader.exec_module(module)
        return module

    return again


@pytest.fixture(scope="session")
def interpreted(as_python: Callable[..., ModuleType]) -> ModuleType:
    """The loops of rounding with the compiler switched off."""
    return as_python(compiled, compiled_philox, compiled_storage)


@pytest.fixture(scope="session")
def interpreted_notes(as_python: Callable[..., ModuleType]) -> ModuleType:
    """Those of notes."""
    return as_python(compiled_strata, compiled_philox, compiled_storage, compiled)


@pytest.fixture
def loops(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run a test on the loops as compiled, or as plain Python, or without them on torch alone."""
    if request.param != "compiled":
        module = request.getfixturevalue("interpreted") if request.param == "interpreted" else None
        notes = request.getfixturevalue("interpreted_notes") if request.param == "interpreted" else None
        monkeypatch.setattr(kernel, "_loops", lambda: module)
        monkeypatch.setattr(kernel, "_noted", lambda: notes)
