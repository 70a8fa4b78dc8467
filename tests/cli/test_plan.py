"""pluria plan, and members exported as Hugging Face folders."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

import pluria as library
from cli.conftest import Pluria


@pytest.fixture
def llama(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    monkeypatch.chdir(tmp_path)
    small = {"hidden_size": 8, "intermediate_size": 12, "num_hidden_layers": 1, "num_attention_heads": 2}
    model = transformers.LlamaForCausalLM(transformers.LlamaConfig(**small, vocab_size=16)).eval()
    model.save_pretrained(tmp_path / "llama")
    library.save(tmp_path / "members.pluria", library.low_precision(model, format="int4", members=3))
    return tmp_path


def test_a_plan_is_a_table_or_json(llama: Path, pluria: Pluria) -> None:
    said = pluria("plan", "llama", "--memory", "1", "--context", "64")
    assert said.code == 0
    assert "working copy" in said.out
    assert "1 GB may be taken" in said.out
    found = json.loads(pluria("plan", "llama", "--members", "2", "--context", "64", "--json").out)
    assert found["caches"] == 2 * 1 * 2 * 4 * 64 * 4
    assert found["fits"] > 2


def test_too_many_members_say_how_many_fit(llama: Path, pluria: Pluria) -> None:
    said = pluria("plan", "llama", "--members", "1000", "--context", "64", "--memory", "0.001")
    assert said.code == 2
    assert "1000 members take 4.1" in said.err
    assert "of them fit" in said.err
    assert pluria("plan", "llama", "--memory", "0").code == 2
    assert "has no config.json" in pluria("plan", ".").err


def test_a_member_becomes_a_folder(llama: Path, pluria: Pluria) -> None:
    command = ("export", "members.pluria", "--folder", "llama", "--member", "2", "--out", "out")
    assert pluria(*command, "--dry-run").out == "would write out: member 2, as llama\n"
    assert not (llama / "out").exists()
    assert pluria(*command).out == "wrote out: member 2, as llama\n"
    wanted = library.load(llama / "members.pluria").params(2)
    found = library.load(llama / "out").state_dict()
    assert all(torch.equal(found[name], value) for name, value in wanted.items())
    said = pluria(*command)
    assert said.code == 2
    assert "there is something already" in said.err
    assert pluria(*command, "--overwrite").code == 0
    assert "does not go with --all" in pluria(*command, "--all").err
