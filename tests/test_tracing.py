"""What coverage traces: the import of the library and first cases of tests, but no whole pages and experiments."""

from __future__ import annotations

import pkgutil
from types import SimpleNamespace
from typing import Any

import pytest

from tracing import pytest_collection, pytest_collection_modifyitems


def test_the_first_case_of_a_test_is_traced() -> None:
    names = [
        "tests/a.py::one[0]",
        "tests/a.py::one[1-[x]]",
        "tests/a.py::two",
        "tests/docs/b.py::one",
        "tests/a.py::t[2]",
    ]
    marks: dict[str, list[str]] = {name: [] for name in names}
    items: Any = [SimpleNamespace(nodeid=name, add_marker=marks[name].append) for name in names]
    pytest_collection_modifyitems(items)
    assert [name for name in names if marks[name] == ["no_cover"]] == [names[1], names[3]]


@pytest.mark.parametrize(
    ("args", "wanted"), [(["tests", "src"], ["import", "pause", "collect", "resume"]), (["tests/core"], ["collect"])]
)
def test_all_tests_are_collected_untraced(args: list[str], wanted: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []
    monkeypatch.setattr(pkgutil, "walk_packages", lambda *_: done.append("import") or [])
    controller = SimpleNamespace(pause=lambda: done.append("pause"), resume=lambda: done.append("resume"))
    plugins = SimpleNamespace(
        getplugin=lambda name: SimpleNamespace(cov_controller=controller), hasplugin=lambda name: False
    )
    config = SimpleNamespace(pluginmanager=plugins, args=args, getini=lambda name: ["tests", "src"])
    session: Any = SimpleNamespace(config=config)
    wrapped = pytest_collection(session)
    next(wrapped)
    done.append("collect")
    with pytest.raises(StopIteration):
        wrapped.send(None)
    assert done == wanted
