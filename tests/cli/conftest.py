"""Fixtures of the command line's tests."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load_file, save_file

from cli.tuned import MODELS
from cli.user import MODEL, Result, call, write_user
from pluria import params_of
from pluria.core.params import Params
from pluria.zoo import network, read
from pluria.zoo.fit import fit

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


@pytest.fixture(scope="session")
def tuned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base, three fine-tunes of it on parts of the digits, and rows that none of them saw."""
    place = tmp_path_factory.mktemp("models")
    rows = read("digits", split="train")
    base = fit(network("mlp", inputs=64, classes=10, hidden=[12]), rows, epochs=3, batch=50, rate=0.01, seed=0)
    save_file(params_of(base), place / "base.safetensors")
    for k in range(3):
        part = rows.take(slice(k * 200, (k + 1) * 200))
        tuned = fit(base, part, epochs=6, batch=50, rate=0.01, seed=k + 1)
        save_file(params_of(tuned), place / f"{k}.safetensors")
    held = read("digits", split="test").split_half()[0]
    x, y = held.normalise(held.inputs).numpy(), held.targets.numpy()
    np.savez(place / "held.npz", x=x, y=y)
    for k in range(3):
        np.savez(place / f"own-{k}.npz", x=x[k::3], y=y[k::3])
    return place


@pytest.fixture
def models(tuned: Path, monkeypatch: pytest.MonkeyPatch) -> list[Params]:
    monkeypatch.chdir(tuned)
    (tuned / "out.safetensors").unlink(missing_ok=True)
    return [load_file(name) for name in MODELS]
