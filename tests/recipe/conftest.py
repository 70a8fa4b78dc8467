"""Fixtures of the recipes' tests."""

import shutil
import sys
from pathlib import Path

import pytest

from pluria.recipe.run import run
from recipe.finished import asked
from recipe.tiny import write_all

OWN = """
import torch

class Net(torch.nn.Module):
    def __init__(self, width=4):
        super().__init__()
        if width < 1:
            raise ValueError("width is at least one")
        self.head = torch.nn.Linear(16, width)

    def forward(self, x):
        return self.head(x.flatten(1))

def rows(count):
    from pluria.zoo.dataset import Dataset
    return Dataset(torch.zeros(count, 16), torch.zeros(count, dtype=torch.int64), ("a",), "own")

def nothing():
    return None

NUMBER = 3
"""


@pytest.fixture
def task(tmp_path: Path) -> Path:
    """A folder with a checkpoint and rows."""
    return write_all(tmp_path)


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A package of the user's in the folder where the command runs."""
    name = f"own_{tmp_path.name.replace('-', '_')}"
    (tmp_path / name).mkdir()
    (tmp_path / name / "net.py").write_text(OWN)
    (tmp_path / name / "broken.py").write_text("import torch\ntorch.no_such_function()\n")
    (tmp_path / name / "needy.py").write_text("import no_such_library_at_all\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    return name


@pytest.fixture(scope="session")
def done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A task with a finished run in its folder `out`; not to be changed."""
    folder = write_all(tmp_path_factory.mktemp("done"))
    run(asked(folder), folder / "out", command="pluria run x")
    return folder


@pytest.fixture
def out(done: Path, tmp_path: Path) -> Path:
    """A copy of the finished run, to be changed."""
    return Path(shutil.copytree(done / "out", tmp_path / "copy"))
