"""Networks from folders as transformers saves them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import pluria
from pluria.core.errors import CheckpointError
from pluria.core.model import ties
from pluria.sample import low_precision
from pluria.store.pretrained import network_in
from store.tiny import KINDS, copied, saved, tiny

pytest.importorskip("transformers", reason="transformers is not installed")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny Llama, as transformers saves it."""
    return saved(tiny("llama"), tmp_path_factory.mktemp("folders") / "llama")


def refusal(folder: Path) -> str:
    with pytest.raises(CheckpointError) as caught:
        pluria.load(folder)
    return str(caught.value)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("form", ["whole", "sharded", "bin"])
def test_the_network_of_a_folder(kind: str, form: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = tiny(kind)
    if form == "bin":
        model.config.architectures = [type(model).__name__]  # type: ignore[union-attr]
        model.config.save_pretrained(tmp_path)  # type: ignore[operator, union-attr]
        torch.save(model.state_dict(), tmp_path / "pytorch_model.bin")
    else:
        saved(model, tmp_path, **({"max_shard_size": "1KB"} if form == "sharded" else {}))
    assert (tmp_path / "model.safetensors.index.json").exists() == (form == "sharded")
    capsys.readouterr()
    found = pluria.load(str(tmp_path))
    assert capsys.readouterr() == ("", ""), "no bars of other libraries"
    assert type(found) is type(model)
    assert not found.training
    assert ties(found) == ties(model)
    wanted = model.state_dict()
    assert list(found.state_dict()) == list(wanted)
    assert all(torch.equal(value, wanted[name]) for name, value in found.state_dict().items())


@pytest.mark.parametrize("kind", ["gpt2", "bert", "t5"])
def test_tied_embeddings_are_rounded_once_and_stay_tied_in_every_member(kind: str, tmp_path: Path) -> None:
    found = pluria.load(saved(tiny(kind), tmp_path))
    members = low_precision(found, format="int4", members=3)
    tied = {name: first for name, first in ties(found).items() if name != first}
    assert any("weight" in name for name in tied)
    for member in range(3):
        params = members.params(member)
        assert all(params[name] is params[first] for name, first in tied.items())
        found.load_state_dict(params)
        assert {name: first for name, first in ties(found).items() if name != first} == tied


def test_an_untied_head_stays_in_full_precision(folder: Path) -> None:
    found = pluria.load(folder)
    members = low_precision(found, format="int3", members=2)
    assert torch.equal(members.params(1)["lm_head.weight"], found.state_dict()["lm_head.weight"])
    name = "model.embed_tokens.weight"
    rows = members.params(1)[name]
    step = found.state_dict()[name].abs().amax(1, keepdim=True) / 3
    torch.testing.assert_close((rows / step).round() * step, rows)
    assert not torch.equal(rows, found.state_dict()[name])


def test_a_saved_ensemble_is_what_it_was(tmp_path: Path) -> None:
    members = low_precision(torch.nn.Linear(3, 2), members=2)
    pluria.save(tmp_path / "x.pluria", members)
    assert torch.equal(pluria.load(tmp_path / "x.pluria").params(1)["weight"], members.params(1)["weight"])


def test_a_folder_has_no_named_ensembles(folder: Path) -> None:
    with pytest.raises(ValueError, match="is a folder with one network; 'int5' would be"):
        pluria.load(folder, name="int5")


def test_a_missing_shard_is_named(tmp_path: Path) -> None:
    shards = sorted(saved(tiny("gpt2"), tmp_path, max_shard_size="1KB").glob("*.safetensors"))
    shards[1].unlink()
    assert f"the shard {shards[1].name} is missing. Download it" in refusal(tmp_path)


def test_folders_that_are_none(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert "this is no Hugging Face folder, it has no config.json" in refusal(tmp_path / "empty")
    bare = copied(folder, tmp_path / "bare")
    (bare / "model.safetensors").unlink()
    assert "the folder has none of model.safetensors, " in refusal(bare)
    odd = copied(folder, tmp_path / "odd", architectures=["NoSuchModel"])
    assert "has no architecture 'NoSuchModel'" in refusal(odd)
    assert "has no architecture 'pipeline'" in refusal(copied(folder, tmp_path / "odder", architectures=["pipeline"]))
    text = copied(folder, tmp_path / "text")
    (text / "config.json").write_text("{")
    assert "config.json is not JSON" in refusal(text)
    (text / "config.json").write_text("[]")
    assert "config.json holds no mapping" in refusal(text)


def test_quantised_folders(folder: Path, tmp_path: Path) -> None:
    gptq = copied(folder, tmp_path / "gptq", quantization_config={"quant_method": "gptq"})
    assert "is quantised already (config.json names the method 'gptq')" in refusal(gptq)
    held = load_file(folder / "model.safetensors")
    eight = copied(folder, tmp_path / "eight")
    name = "model.layers.0.mlp.up_proj.weight"
    narrow = {**held, name: held[name].to(torch.float8_e4m3fn)}
    save_file(narrow, eight / "model.safetensors", metadata={"format": "pt"})
    assert f"is quantised already (torch.float8_e4m3fn: {name})" in refusal(eight)


def test_a_folder_without_all_weights_is_not_filled_up_at_random(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    part = copied(folder, tmp_path / "part")
    held = load_file(part / "model.safetensors")
    some = {name: value for name, value in held.items() if "lm_head" not in name}
    save_file(some, part / "model.safetensors", metadata={"format": "pt"})
    assert "the checkpoint lacks lm_head.weight" in refusal(part)
    assert capsys.readouterr().err == "", "the library's own report says it a second time"


def test_nan_is_refused(folder: Path, tmp_path: Path) -> None:
    bad = copied(folder, tmp_path / "bad")
    held = load_file(bad / "model.safetensors")
    held["model.norm.weight"][3] = torch.nan
    save_file(held, bad / "model.safetensors", metadata={"format": "pt"})
    assert "model.norm.weight" in refusal(bad)


def test_a_bin_that_needs_code_is_not_run(folder: Path, tmp_path: Path) -> None:
    code = copied(folder, tmp_path / "code")
    (code / "model.safetensors").unlink()
    torch.save({"x": Path("x")}, code / "pytorch_model.bin")
    assert "reading it would run code" in refusal(code)


CODE = """
from transformers import LlamaConfig, LlamaForCausalLM


class OwnConfig(LlamaConfig):
    model_type = "own"


class OwnModel(LlamaForCausalLM):
    config_class = OwnConfig
"""


def test_code_of_a_folder_is_run_only_by_consent(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import transformers

    monkeypatch.setattr(transformers.dynamic_module_utils, "HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.syspath_prepend(tmp_path / "modules")
    names = {"AutoConfig": "own.OwnConfig", "AutoModelForCausalLM": "own.OwnModel"}
    own = copied(folder, tmp_path / "own", architectures=["OwnModel"], model_type="own", auto_map=names)
    (own / "own.py").write_text(CODE)
    assert "is code that comes with the folder (own.OwnModel) and would be run. Read it" in refusal(own)
    found = pluria.load(own, trust=True)
    assert type(found).__name__ == "OwnModel"
    assert torch.equal(found.state_dict()["lm_head.weight"], network_in(folder).state_dict()["lm_head.weight"])


def test_without_transformers(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "transformers", None)
    assert "needs transformers: pip install 'pluria[hf]'" in refusal(folder)
