"""The command line on a Hugging Face folder."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import pluria as library
from cli.conftest import Pluria
from store.tiny import copied, saved, tiny

pytest.importorskip("transformers", reason="transformers is not installed")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return saved(tiny("vit"), tmp_path / "vit")


def test_members_of_a_folder_are_drawn_and_run(folder: Path, pluria: Pluria) -> None:
    done = pluria("sample", "--model", "vit", "--members", 2, "--out", "vit.pluria")
    assert (done.code, done.err) == (0, "")
    assert done.out == "wrote vit.pluria: 2 members, int5, stratified\n"
    assert len(library.load("vit.pluria")) == 2
    np.savez("rows.npz", x=np.zeros((4, 3, 8, 8), dtype=np.float32), y=np.array([0, 1, 0, 1]))
    done = pluria("predict", "vit.pluria", "--data", "rows.npz", "--out", "p.safetensors", "--quiet")
    assert done.out == "wrote p.safetensors: outputs (2, 4, 2) of 2 members on 4 rows\n"


def test_a_missing_shard_ends_in_one_message(folder: Path, pluria: Pluria) -> None:
    saved(tiny("vit"), folder.parent / "parts", max_shard_size="1KB")
    gone = sorted((folder.parent / "parts").glob("*.safetensors"))[0]
    gone.unlink()
    done = pluria("sample", "--model", "parts", "--out", "x.pluria")
    assert done.code == 2
    assert f"the shard {gone.name} is missing" in done.err
    assert not Path("x.pluria").exists()


def test_code_of_a_folder_needs_trust(folder: Path, pluria: Pluria) -> None:
    copied(folder, folder.parent / "own", architectures=["Own"], auto_map={"AutoModelForImageClassification": "m.Own"})
    done = pluria("sample", "--model", "own", "--out", "x.pluria")
    assert done.code == 2
    assert "or --trust on the command line" in done.err
    done = pluria("sample", "--model", "own", "--trust", "--out", "x.pluria")
    assert done.code == 2
    assert "m.py" in done.err, "transformers looks for the code"
