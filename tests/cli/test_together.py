"""Several networks in one file answer as one on the command line."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from cli.user import call
from pluria.recipe.folder import RunFolder
from pluria.recipe.prepare import prepare
from pluria.recipe.run import run
from recipe.test_several import TOGETHER, asked
from recipe.tiny import write_all, write_network


def test_the_file_is_predicted_with_as_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_all(tmp_path)
    for name, width in (("narrow", 4), ("wide", 6)):
        torch.save(write_network(folder / "x.safetensors", seed=width, width=width).state_dict(), folder / f"{name}.pt")
    run(asked(folder), folder / "out")
    out, file, data = folder / "p.safetensors", folder / "out" / "ensemble.pluria", folder / "data.npz"
    command = ["predict", str(file), "--data", str(data), "--out", str(out), "--quiet"]
    done = call(capsys, monkeypatch, *command, "--name", TOGETHER)
    assert done.code == 0, done.err
    assert "outputs (4, 40, 3) of 4 members" in done.out
    held, job = load_file(out), next(job for job in prepare(asked(folder)).jobs if job.name == TOGETHER)
    assert held["weights"].tolist() == [0.25] * 4
    kept = RunFolder(folder / "out").outputs([job.place(name) for name in job.arm.networks], 2, "figures")
    every = torch.from_numpy(np.load(data)["x"])
    rows = [int((every == one).flatten(1).all(1).nonzero()[0]) for one in prepare(asked(folder)).rows.figures.inputs]
    assert torch.allclose(held["outputs"][:, rows], kept, atol=1e-5)
    lost = call(capsys, monkeypatch, *command)
    assert lost.code == 2
    assert f"the file holds {TOGETHER!r}" in lost.err
