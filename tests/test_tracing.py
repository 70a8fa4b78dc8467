"""Which tests coverage traces: the first case of each, and none of whole pages and experiments."""

from types import SimpleNamespace

from tracing import pytest_collection_modifyitems


def test_the_first_case_of_a_test_is_traced() -> None:
    marks: dict[str, list[str]] = {}
    names = [
        "tests/a.py::one[0]",
        "tests/a.py::one[1-[x]]",
        "tests/a.py::two",
        "tests/docs/b.py::one",
        "tests/a.py::t[2]",
    ]
    for name in names:
        marks[name] = []
    pytest_collection_modifyitems([SimpleNamespace(nodeid=name, add_marker=marks[name].append) for name in names])  # type: ignore[misc]
    assert [name for name in names if marks[name] == ["no_cover"]] == [names[1], names[3]]
