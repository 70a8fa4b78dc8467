"""Fixtures of the command line's tests."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cli.user import MODEL, Result, call, write_user

Pluria = Callable[..., Result]


@pytest.fixture
def own_modules() -> Iterator[None]:
    """What a command imports of the user's is forgotten again."""
    path = list(sys.path)
    yield
    sys.path[:] = path
    for name in [name for name in sys.modules if name.split(".")[0] == "my_package"]:
        del sys.modules[name]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, own_modules: None) -> Path:
    """A folder of a user's, which is the one that commands run in."""
    monkeypatch.chdir(write_user(tmp_path))
    return tmp_path


@pytest.fixture
def pluria(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Pluria:
    """The command line within this process."""
    return lambda *arguments: call(capsys, monkeypatch, *arguments)


@pytest.fixture
def no_plots(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reports of one line: drawing takes longer than the rest of a small run."""
    monkeypatch.setattr("pluria.report.html.write_report", lambda figures, place: Path(place).write_text("a report"))


@pytest.fixture
def drawn(here: Path, pluria: Pluria) -> Path:
    """The folder with `net.pluria` drawn from the checkpoint."""
    done = pluria("sample", "--model", MODEL, "--checkpoint", "net.safetensors", "--out", "net.pluria", "--members", 4)
    assert done.code == 0, done.err
    return here


@pytest.fixture
def ran(here: Path, pluria: Pluria) -> Path:
    """The folder with a finished run in `out`."""
    assert pluria("run", "recipe.yaml", "--out", "out", "--quiet").code == 0
    return here
