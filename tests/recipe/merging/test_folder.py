"""Merged Hugging Face folders open with `from_pretrained` and give the right logits."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from pluria import Merge, PluriaError, leafwise, merge_files, stack
from pluria.merge import linear

transformers = pytest.importorskip("transformers", reason="transformers is not installed")

SIZES: dict[str, Any] = {
    "hidden_size": 8,
    "intermediate_size": 12,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "vocab_size": 11,
    "bos_token_id": 0,
    "eos_token_id": 0,
}
TOKENS = {"input_ids": torch.tensor([[1, 2, 3], [4, 5, 6]])}


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    transformers.utils.logging.disable_progress_bar()
    logging.disable(logging.WARNING)
    yield
    logging.disable(logging.NOTSET)


def network(seed: int, *, tied: bool = False) -> Any:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return transformers.LlamaForCausalLM(transformers.LlamaConfig(**SIZES, tie_word_embeddings=tied)).eval()


def folders(place: Path, count: int = 2, *, tied: bool = False, size: str = "50GB") -> tuple[str, ...]:
    for seed in range(count):
        folder = place / f"model-{seed}"
        network(seed, tied=tied).save_pretrained(folder, max_shard_size=size)
        (folder / "tokenizer.json").write_text("{}")
        (folder / "README.md").write_text("of the source")
    return tuple(str(place / f"model-{seed}") for seed in range(count))


@pytest.mark.parametrize("size", ["50GB", "2KB"])
@pytest.mark.parametrize("tied", [False, True])
def test_a_merged_folder_opens_and_answers_like_the_merge_in_memory(tied: bool, size: str, tmp_path: Path) -> None:
    models, out = folders(tmp_path, tied=tied, size=size), tmp_path / "out"
    merge_files(Merge("linear", models, weights=(3, 1)), out)
    made = transformers.AutoModelForCausalLM.from_pretrained(out).eval()
    wanted, several = network(0, tied=tied), [dict(network(seed, tied=tied).state_dict()) for seed in range(2)]
    wanted.load_state_dict(leafwise(stack(several).reweight(torch.tensor([3.0, 1.0])), linear()))
    with torch.no_grad():
        assert torch.equal(made(**TOKENS).logits, wanted(**TOKENS).logits)
    there = {path.name for path in out.iterdir()}
    assert {"config.json", "generation_config.json", "tokenizer.json", "merge.json"} <= there
    assert "README.md" not in there
    assert ("model.safetensors.index.json" in there) == (size == "2KB")
    told = json.loads((out / "merge.json").read_text())
    assert [model["path"] for model in told["models"]] == list(models)
    assert all(set(file["sha256"]) != {"0"} for model in told["models"] for file in model["files"])


def test_one_file_is_dealt_out_to_several_where_it_is_asked_for(tmp_path: Path) -> None:
    models, out = folders(tmp_path), tmp_path / "out"
    merge_files(Merge("linear", models), out, shard=1000)
    index = json.loads((out / "model.safetensors.index.json").read_text())
    assert len(set(index["weight_map"].values())) > 3
    assert transformers.AutoModelForCausalLM.from_pretrained(out) is not None


def test_the_configuration_says_which_dtype_was_written(tmp_path: Path) -> None:
    models, out = folders(tmp_path), tmp_path / "out"
    merge_files(Merge("linear", models, dtype="bfloat16"), out)
    assert transformers.AutoModelForCausalLM.from_pretrained(out, dtype="auto").dtype == torch.bfloat16


def test_a_base_gives_the_folder_its_form(tmp_path: Path) -> None:
    models, out = folders(tmp_path, 3), tmp_path / "out"
    files = [str(Path(model) / "model.safetensors") for model in models[1:]]
    merge_files(Merge("task_arithmetic", tuple(files), models[0]), out)
    assert (out / "config.json").read_text() == (Path(models[0]) / "config.json").read_text()


def test_what_is_refused(tmp_path: Path) -> None:
    models, out = folders(tmp_path), tmp_path / "out"
    out.mkdir()
    (out / "mine.txt").write_text("kept")
    with pytest.raises(FileExistsError, match="there is something already"):
        merge_files(Merge("linear", models), out)
    assert (out / "mine.txt").read_text() == "kept"
    for place in (models[0], str(tmp_path), f"{models[1]}/inner"):
        with pytest.raises(PluriaError, match="or one holds the other"):
            merge_files(Merge("linear", models), place, overwrite=True)
    with pytest.raises(PluriaError, match="a shard has one byte or more; got 0"):
        merge_files(Merge("linear", models), tmp_path / "other", shard=0)
    save_file(load_file(f"{models[0]}/model.safetensors"), tmp_path / "a.safetensors")
    with pytest.raises(PluriaError, match=r"name a .safetensors file; for a folder"):
        merge_files(Merge("linear", (str(tmp_path / "a.safetensors"),)), tmp_path / "other")
    merge_files(Merge("linear", models), out, overwrite=True)
    assert not (out / "mine.txt").exists()
