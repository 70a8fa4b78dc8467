"""pluria check on files: the sentence, the tables and the JSON; a user's mistakes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from cli.conftest import Pluria
from pluria.zoo import network


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    for seed in (0, 1):
        model = network("mlp", inputs=6, classes=3, hidden=[5], seed=seed)
        save_file(model.state_dict(), f"{seed}.safetensors")
    x = torch.randn(20, 6, generator=torch.Generator().manual_seed(0)).numpy()
    np.savez("rows.npz", x=x, y=np.arange(20) % 3)
    return tmp_path


def test_files_alone(files: Path, pluria: Pluria) -> None:
    done = pluria(*["check", "0.safetensors", "1.safetensors", "--base", "0.safetensors"])
    assert done.code == 0
    assert "squared distance (0 equal, 1 orthogonal)" in done.out
    assert "places moved to different sides" in done.out
    assert done.out.rstrip().splitlines()[-1].startswith("They look unrelated")


def test_with_a_network_and_data(files: Path, pluria: Pluria) -> None:
    net = "--model mlp --argument inputs=6 --argument classes=3 --argument hidden=[5] --data rows.npz"
    done = pluria(*f"check 0.safetensors 1.safetensors {net} --heads head.*".split())
    assert done.code == 0
    assert "shared trunk, mean probability" in done.out
    found = json.loads(pluria(*f"check 0.safetensors 1.safetensors {net} --json".split()).out)
    assert len(found["measured"]["barriers"]) == 1
    assert found["between"]["spread"] < 1
    assert [choice["what"] for choice in found["measured"]["choices"]][1] == "soup"


def test_mistakes(files: Path, pluria: Pluria) -> None:
    done = pluria(*["check", "0.safetensors"])
    assert (done.code, "two models or more" in done.err) == (2, True)
    done = pluria(*["check", "0.safetensors", "1.safetensors", "--model", "mlp"])
    assert (done.code, "losses need both --model and --data" in done.err) == (2, True)
    done = pluria(*["check", "0.safetensors", "nothing.safetensors"])
    assert (done.code, "nothing.safetensors" in done.err) == (2, True)
