"""Exported names are exactly what is exported, and every public function says what it does."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import typing
from types import ModuleType

import pytest

import pluria

PACKAGES = (
    "align",
    "check",
    "language",
    "merge",
    "pool",
    "predict",
    "sample",
    "score",
    "store",
    "train",
    "wrap",
    "zoo",
)
CODE = (
    "pluria.numbers.compiled",
    "pluria.numbers.tiled",
    "pluria.predict.kernels.compiled",
    "pluria.predict.kernels.tiled",
)
"""What needs Numba or Triton, and is reached through other modules."""
MODULES = sorted(
    info.name for info in pkgutil.walk_packages(pluria.__path__, "pluria.") if not info.name.startswith(CODE)
)


def undocumented(module: ModuleType) -> list[str]:
    """Public functions, classes and methods of a module that say nothing about themselves."""
    found = []
    for name, value in vars(module).items():
        if name.startswith("_") or getattr(value, "__module__", None) != module.__name__:
            continue
        if inspect.isfunction(value) and not value.__doc__:
            found.append(name)
        if inspect.isclass(value):
            # A dataclass without a docstring of its own is given its signature as one.
            found += [name] if not value.__doc__ or value.__doc__.startswith(f"{name}(") else []
    return found


def test_all_is_what_is_exported() -> None:
    assert pluria.__all__ == sorted(pluria.__all__)
    assert set(pluria.__all__) == set(pluria._OF)
    assert len(set(pluria.__all__)) == len(pluria.__all__)


@pytest.mark.parametrize("name", pluria.__all__)
def test_every_name_is_there(name: str) -> None:
    value = getattr(pluria, name)
    assert value is getattr(importlib.import_module(pluria._OF[name]), name)
    if inspect.isfunction(value) or inspect.isclass(value):
        assert value.__doc__
        assert value.__name__ == name


def test_names_for_type_checkers_are_those_at_run_time() -> None:
    tree = inspect.getsource(pluria).split("if TYPE_CHECKING:")[1].split("__version__")[0]
    told = {}
    for line in tree.strip().splitlines():
        module, _, names = line.strip().removeprefix("from ").partition(" import ")
        told.update({name.strip(): module for name in names.split(",")})
    assert told == pluria._OF


def test_a_name_that_is_not_there() -> None:
    with pytest.raises(AttributeError, match="module 'pluria' has no attribute 'low_precison'"):
        _ = pluria.low_precison  # type: ignore[attr-defined]
    with pytest.raises(ImportError):
        from pluria import nothing  # type: ignore[attr-defined]  # noqa: F401


def test_names_are_listed() -> None:
    assert set(pluria.__all__) <= set(dir(pluria))
    held: dict[str, object] = {}
    exec("from pluria import *", held)
    assert set(pluria.__all__) <= set(held)


@pytest.mark.parametrize("package", PACKAGES)
def test_packages_export_what_they_say(package: str) -> None:
    module = importlib.import_module(f"pluria.{package}")
    assert module.__doc__
    assert module.__all__ == sorted(module.__all__, key=lambda n: (not n.isupper(), not n[0].isupper(), n))
    assert len(set(module.__all__)) == len(module.__all__)
    for name in module.__all__:
        assert getattr(module, name, None) is not None, name


@pytest.mark.parametrize("name", MODULES)
def test_public_functions_say_what_they_do(name: str) -> None:
    module = importlib.import_module(name)
    assert undocumented(module) == []


@pytest.mark.parametrize("name", pluria.__all__)
def test_public_signatures_are_typed(name: str) -> None:
    value = getattr(pluria, name)
    if inspect.isfunction(value):
        hints = typing.get_type_hints(value)
        assert set(inspect.signature(value).parameters) | {"return"} == set(hints)


def test_what_says_nothing_is_found() -> None:
    module = ModuleType("made_up")
    exec("def f():\n    pass\n\nclass C:\n    pass\n\ndef g():\n    'Says.'\n", vars(module))
    assert undocumented(module) == ["f", "C"]
