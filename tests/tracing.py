"""Where coverage traces lines. Tracing makes Python slower by half, so it is kept to what adds to the figure.

What is left out still runs: the import of tests and of all that they need, every case of a test but its first, and
whole pages, reports in a browser and experiments.
"""

from __future__ import annotations

import contextlib
import importlib
import pkgutil
from collections.abc import Generator, Sequence

import pytest

import pluria

WHOLE = tuple(f"tests/{folder}/" for folder in ("browser", "docs", "experiments"))
"""Tests of what is made of the library; what they reach in it has tests of its own."""

OTHERS = ("pluria.wrap.",)
"""Modules that import another library's whole frame. Their own tests import them first, and are traced."""


@pytest.hookimpl(wrapper=True)
def pytest_collection(session: pytest.Session) -> Generator[None, object, object]:
    """Of all tests: import the library while lines are traced, then the tests while they are not."""
    config, plugins = session.config, session.config.pluginmanager
    controller = getattr(plugins.getplugin("_cov"), "cov_controller", None)
    if controller is None or plugins.hasplugin("dsession") or config.args != config.getini("testpaths"):
        return (yield)
    for module in pkgutil.walk_packages(pluria.__path__, "pluria."):
        if not module.name.startswith(OTHERS):
            with contextlib.suppress(ImportError):  # what needs a package that is not installed
                importlib.import_module(module.name)
    controller.pause()
    try:
        return (yield)
    finally:
        controller.resume()


def pytest_collection_modifyitems(items: Sequence[pytest.Item]) -> None:
    """Mark what is not traced: every case of a test after its first, and all of `WHOLE`."""
    seen: set[str] = set()
    for item in items:
        name = item.nodeid.partition("[")[0]
        if name in seen or name.startswith(WHOLE):
            item.add_marker("no_cover")
        seen.add(name)
