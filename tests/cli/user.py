"""A user's own network, checkpoint and rows, and the command line as a process or within this one."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from pluria.cli import main

NET = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self, width=16):
        super().__init__()
        self.body = nn.Linear(12, width)
        self.norm = nn.BatchNorm1d(width)
        self.head = nn.Linear(width, 3)

    def forward(self, x):
        return self.head(torch.relu(self.norm(self.body(x))))
"""

MODEL = "my_package.net:Net"
SCRIPT = Path(sys.executable).parent / "pluria"


@dataclass(frozen=True)
class Result:
    """Exit code, stdout and stderr of a command."""

    code: int
    out: str
    err: str


def process(*arguments: object, cwd: Path, env: Mapping[str, str] | None = None, **options: Any) -> Result:
    """`pluria` as a new process of the installed script."""
    command = [str(SCRIPT), *map(str, arguments)]
    done = subprocess.run(
        command, cwd=cwd, env={**os.environ, **(env or {})}, capture_output=True, text=True, timeout=240, **options
    )
    return Result(done.returncode, done.stdout, done.stderr)


def call(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *arguments: object) -> Result:
    """`pluria` within this process, which spares the start of one; a bug of ours comes out as its exception."""
    monkeypatch.setattr(sys, "argv", ["pluria", *map(str, arguments)])
    capsys.readouterr()
    code: Any = 0
    try:
        main()
    except SystemExit as stop:
        code = stop.code
    said = capsys.readouterr()
    return Result(code or 0, said.out, said.err)


def network() -> nn.Module:
    """The user's network with some weights and statistics."""
    held: dict[str, Any] = {}
    exec(NET, held)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model: nn.Module = held["Net"]()
        model.norm.running_mean.copy_(torch.randn(16) / 4)  # type: ignore[operator,union-attr]
    return model.eval()


def write_user(folder: Path) -> Path:
    """`my_package/net.py`, `net.safetensors` and `rows.npz` in a folder, as a user has them."""
    (folder / "my_package").mkdir()
    (folder / "my_package" / "__init__.py").write_text("")
    (folder / "my_package" / "net.py").write_text(NET)
    save_file(network().state_dict(), folder / "net.safetensors")
    draw = np.random.default_rng(0)
    np.savez(folder / "rows.npz", x=draw.normal(size=(40, 12)).astype("float32"), y=draw.integers(0, 3, 40))
    (folder / "recipe.yaml").write_text(RECIPE)
    return folder


RECIPE = """
title: Mine
network: {model: "my_package.net:Net", checkpoint: net.safetensors}
data: {reader: arrays, arguments: {path: rows.npz}}
arms: [{method: low_precision, members: 2, format: int3, refresh: false}]
views: []
controls: false
"""


def refused(result: Result, *said: str) -> None:
    """The command ended in one message that says all of this."""
    assert result.code == 2, result.err
    assert result.out == ""
    assert result.err.startswith("error: ")
    assert result.err.count("error: ") == 1
    assert "Traceback" not in result.err
    assert result.err.endswith("\n")
    assert not result.err.endswith("\n\n")
    for each in said:
        assert each in result.err


def left(folder: Path) -> set[str]:
    return {str(place.relative_to(folder)) for place in folder.rglob("*") if "__pycache__" not in place.parts}
