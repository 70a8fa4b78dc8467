"""Members as folders that transformers opens."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from pluria.core.ensemble import Ensemble, single
from pluria.core.errors import CheckpointError
from pluria.predict import gather, predict
from pluria.sample import gptq, low_precision
from pluria.store import export_folder, read_checkpoint

transformers = pytest.importorskip("transformers", reason="transformers is not installed")

SMALL = {"hidden_size": 8, "intermediate_size": 12, "num_hidden_layers": 2, "num_attention_heads": 2}
WORDS = {"vocab_size": 11, "bos_token_id": 0, "eos_token_id": 0}
TOKENS = {"input_ids": torch.tensor([[1, 2, 3], [4, 5, 6]])}


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    transformers.utils.logging.disable_progress_bar()
    logging.disable(logging.WARNING)
    yield
    logging.disable(logging.NOTSET)


def network(kind: str) -> nn.Module:
    made = {
        "llama": lambda t: t.LlamaForCausalLM(t.LlamaConfig(**SMALL, **WORDS, num_key_value_heads=1)),
        "gpt2": lambda t: t.GPT2LMHeadModel(t.GPT2Config(n_embd=8, n_layer=1, n_head=2, n_positions=6, **WORDS)),
        "bert": lambda t: t.BertForSequenceClassification(t.BertConfig(**SMALL, vocab_size=11)),
        "vit": lambda t: t.ViTForImageClassification(t.ViTConfig(**SMALL, image_size=8, patch_size=4)),
        "t5": lambda t: t.T5ForConditionalGeneration(
            t.T5Config(d_model=8, d_kv=4, d_ff=12, num_layers=1, num_heads=2, vocab_size=11, decoder_start_token_id=0)
        ),
    }
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return made[kind](transformers).eval()  # type: ignore[no-any-return]


def batch(kind: str) -> dict[str, Tensor]:
    if kind == "vit":
        return {"pixel_values": torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(1))}
    return {**TOKENS, "decoder_input_ids": TOKENS["input_ids"]} if kind == "t5" else TOKENS


def saved(folder: Path, kind: str = "llama", **options: Any) -> tuple[nn.Module, Path]:
    model = network(kind)
    model.save_pretrained(folder, **options)  # type: ignore[operator]
    (folder / "tokenizer.json").write_text("{}")
    (folder / "LICENSE").write_text("theirs")
    (folder / "README.md").write_text("of the source")
    return model, folder


def opened(folder: Path, like: nn.Module) -> nn.Module:
    model, told = type(like).from_pretrained(folder, output_loading_info=True)  # type: ignore[attr-defined]
    assert not told["missing_keys"]
    assert not told["unexpected_keys"]
    return model.eval()  # type: ignore[no-any-return]


@pytest.mark.parametrize("kind", ["llama", "gpt2", "bert", "vit", "t5"])
def test_the_folder_gives_what_the_member_gives(tmp_path: Path, kind: str) -> None:
    model, source = saved(tmp_path / "source", kind)
    ensemble = low_precision(model, format="int4", members=3)
    wanted, _ = gather(predict(model, ensemble, [batch(kind)]))
    export_folder(ensemble, 2, tmp_path / "out", source=source)
    found = opened(tmp_path / "out", model)
    with torch.no_grad():
        assert torch.equal(found(**batch(kind)).logits, wanted[2])
    assert not torch.equal(wanted[2], wanted[1])
    kept = sorted(entry.name for entry in (tmp_path / "out").iterdir())
    assert "README.md" not in kept
    assert {"LICENSE", "config.json", "model.safetensors", "tokenizer.json"} <= set(kept)
    assert not list(tmp_path.glob(".pluria*"))


def test_the_nearest_model_with_feedback_is_a_folder_too(tmp_path: Path) -> None:
    model, source = saved(tmp_path / "source")
    tokens = torch.randint(0, 11, (8, 6), generator=torch.Generator().manual_seed(1))
    closest = gptq(model, [{"input_ids": tokens}], format="int4", follow="reference")
    export_folder(closest, 0, tmp_path / "out", source=source)
    wanted, _ = gather(predict(model, closest, [TOKENS]))
    with torch.no_grad():
        assert torch.equal(opened(tmp_path / "out", model)(**TOKENS).logits, wanted[0])


def test_tied_tensors_stay_tied(tmp_path: Path) -> None:
    model, source = saved(tmp_path / "source", "gpt2")
    export_folder(low_precision(model, members=2), 1, tmp_path / "out", source=source)
    held = load_file(tmp_path / "out" / "model.safetensors")
    assert "lm_head.weight" not in held
    assert set(held) == set(load_file(source / "model.safetensors"))
    found = opened(tmp_path / "out", model)
    assert found.lm_head.weight is found.transformer.wte.weight  # type: ignore[union-attr]


def test_shards_are_those_of_the_source(tmp_path: Path) -> None:
    model, source = saved(tmp_path / "source", max_shard_size="1KB")
    export_folder(low_precision(model, members=2), 1, tmp_path / "out", source=source)
    theirs = json.loads((source / "model.safetensors.index.json").read_text())["weight_map"]
    held = json.loads((tmp_path / "out" / "model.safetensors.index.json").read_text())
    assert held["weight_map"] == theirs
    assert len(set(theirs.values())) > 2
    assert held["metadata"]["total_size"] == sum(v.numel() * 4 for v in model.parameters())
    opened(tmp_path / "out", model)


def test_large_files_are_dealt_out(tmp_path: Path) -> None:
    model, source = saved(tmp_path / "source")
    ensemble = low_precision(model, members=2)
    export_folder(ensemble, 1, tmp_path / "out", source=source, shard=1500)
    files = sorted((tmp_path / "out").glob("*.safetensors"))
    assert [file.name for file in files][:1] == [f"model-00001-of-{len(files):05d}.safetensors"]
    assert all(sum(v.nbytes for v in load_file(file).values()) <= 1500 for file in files)
    found = opened(tmp_path / "out", model).state_dict()
    assert all(torch.equal(found[name], value) for name, value in ensemble.params(1).items())


def test_a_torch_source_becomes_safetensors(tmp_path: Path) -> None:
    model, source = saved(tmp_path / "source")
    (source / "model.safetensors").unlink()
    torch.save(model.state_dict(), source / "pytorch_model.bin")
    export_folder(low_precision(model, members=2), 1, tmp_path / "out", source=source)
    assert not list((tmp_path / "out").glob("*.bin"))
    opened(tmp_path / "out", model)


def test_members_of_mapped_tensors(tmp_path: Path) -> None:
    model, source = saved(tmp_path / "source", max_shard_size="1KB")
    mapped = single(read_checkpoint(source, mapped=True).params)
    export_folder(low_precision(mapped, members=3, format="int4"), 2, tmp_path / "out", source=source)
    wanted = low_precision(model, members=3, format="int4").params(2)
    found = opened(tmp_path / "out", model).state_dict()
    assert all(torch.equal(found[name], value) for name, value in wanted.items())


def test_what_is_there_is_not_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, source = saved(tmp_path / "source")
    ensemble = low_precision(model, members=2)
    for place in (source, tmp_path):
        with pytest.raises(ValueError, match="is the source, or holds it"):
            export_folder(ensemble, 0, place, source=source, overwrite=True)
    out = tmp_path / "out"
    out.mkdir()
    (out / "mine.txt").write_text("kept")
    with pytest.raises(FileExistsError, match="there is something already"):
        export_folder(ensemble, 0, out, source=source)

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as broken:
        broken.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="No space left"):
            export_folder(ensemble, 0, out, source=source, overwrite=True)
    assert [entry.name for entry in out.iterdir()] == ["mine.txt"]
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["out", "source"]
    export_folder(ensemble, 0, out, source=source, overwrite=True)
    assert not (out / "mine.txt").exists()
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["out", "source"]


def test_what_does_not_fit_is_refused(tmp_path: Path) -> None:
    model, source = saved(tmp_path / "source")
    ensemble = low_precision(model, members=2)
    with pytest.raises(ValueError, match=r"no member 2; its members are \[0, 1\]"):
        export_folder(ensemble, 2, tmp_path / "out", source=source)
    with pytest.raises(ValueError, match="one byte or more; got 0"):
        export_folder(ensemble, 0, tmp_path / "out", source=source, shard=0)
    with pytest.raises(CheckpointError, match=r"has no config\.json"):
        export_folder(ensemble, 0, tmp_path / "out", source=tmp_path)
    other = Ensemble({"lm_head.weight": single({"w": torch.zeros(2, 2)}).families["w"]}, (0,))
    with pytest.raises(CheckpointError, match=r"it has 'lm_head.weight' with \(11, 8\), the ensemble with \(2, 2\)"):
        export_folder(other, 0, tmp_path / "out", source=source)
    assert [entry.name for entry in tmp_path.iterdir()] == ["source"]
