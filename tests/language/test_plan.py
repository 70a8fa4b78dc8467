"""Memory plans: sums worked by hand, and a folder of eight thousand million parameters that nobody loads."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from pluria.core.errors import CheckpointError, PluriaError
from pluria.core.sizes import readable
from pluria.language.plan import memory_plan, refuse_over

LLAMA: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "hidden_size": 8,
    "vocab_size": 10,
    "max_position_embeddings": 64,
}
SHAPES: dict[str, tuple[int, ...]] = {
    "model.embed_tokens.weight": (10, 8),
    "model.layers.0.q_proj.weight": (8, 8),
    "model.layers.1.q_proj.weight": (8, 8),
    "model.norm.weight": (8,),
    "lm_head.weight": (10, 8),
}


def folder(at: Path, config: dict[str, Any], shapes: dict[str, tuple[int, ...]], files: int = 1) -> Path:
    """A folder whose tensors are holes in its files: they have a size and take no room."""
    at.mkdir()
    (at / "config.json").write_text(json.dumps(config))
    names = list(shapes)
    parts = {f"model-{i}.safetensors": names[i::files] for i in range(files)}
    for file, held in (parts if files > 1 else {"model.safetensors": names}).items():
        header: dict[str, Any] = {}
        end = 0
        for name in held:
            start, end = end, end + 2 * math.prod(shapes[name])
            header[name] = {"dtype": "BF16", "shape": list(shapes[name]), "data_offsets": [start, end]}
        text = json.dumps(header).encode()
        with open(at / file, "wb") as out:
            out.write(len(text).to_bytes(8, "little") + text)
            out.truncate(8 + len(text) + end)
    if files > 1:
        places = {name: file for file, held in parts.items() for name in held}
        (at / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))
    return at


def test_a_small_plan_by_hand(tmp_path: Path) -> None:
    place = folder(tmp_path / "net", LLAMA, SHAPES)
    plan = memory_plan(place, members=3, format="int4", context=16, available=10_000)
    assert plan.parameters == 80 + 64 + 64 + 8 + 80
    assert plan.base == 0
    assert plan.working_copy == 2 * 296
    assert plan.codes == 0
    assert plan.caches == 2 * 2 * 2 * 2 * 16 * 2  # keys and values, layers, heads, head size, tokens, bytes
    assert plan.logits == 16 * 10 * (2 + 4)
    assert plan.tensor == 2 * 80
    assert plan.total == 592 + 960 + 160 + 3 * 512
    assert plan.fits == (10_000 - 592 - 960 - 160) // 512
    held = memory_plan(place, members=3, context=16, mapped=False, available=10_000)
    assert held.base == held.working_copy == 592
    codes = memory_plan(place, members=3, format="int4", kept="codes", context=16)
    assert codes.codes == (80 + 64 + 64) // 2 + 4 * (10 + 8 + 8), "the head is not rounded"
    assert memory_plan(place, context=16, batch=2).caches == 2 * plan.caches


def test_other_networks(tmp_path: Path) -> None:
    gpt2 = {"architectures": ["GPT2LMHeadModel"], "n_layer": 3, "n_head": 2, "n_embd": 8, "vocab_size": 10}
    assert memory_plan(folder(tmp_path / "gpt2", gpt2, SHAPES), context=4).caches == 2 * 3 * 2 * 4 * 4 * 2
    t5 = {"architectures": ["T5ForConditionalGeneration"], "num_layers": 3, "num_heads": 2, "d_model": 8, "d_kv": 5}
    t5 = {**t5, "is_encoder_decoder": True, "vocab_size": 10}
    assert memory_plan(folder(tmp_path / "t5", t5, SHAPES), context=4).caches == (2 * 3 * 2 * 5 * 4 * 2 + 4 * 8) * 2
    vit = {"architectures": ["ViTForImageClassification"], "num_hidden_layers": 3, "num_attention_heads": 2}
    plan = memory_plan(folder(tmp_path / "vit", vit, SHAPES))
    assert (plan.caches, plan.logits) == (0, 0)


def test_eight_thousand_million_parameters(tmp_path: Path) -> None:
    config = {**LLAMA, "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8}
    config |= {"hidden_size": 4096, "vocab_size": 128256, "max_position_embeddings": 8192}
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (128256, 4096), "lm_head.weight": (128256, 4096)}
    for layer in range(32):
        for name, shape in {"q": (4096, 4096), "k": (1024, 4096), "v": (1024, 4096), "o": (4096, 4096)}.items():
            shapes[f"model.layers.{layer}.self_attn.{name}_proj.weight"] = shape
        for name, shape in {"gate": (14336, 4096), "up": (14336, 4096), "down": (4096, 14336)}.items():
            shapes[f"model.layers.{layer}.mlp.{name}_proj.weight"] = shape
    place = folder(tmp_path / "large", config, shapes, files=4)
    plan = memory_plan(place, members=8, context=8192, available=24 * 10**9)
    assert plan.parameters == 8_029_995_008
    assert plan.working_copy == 2 * plan.parameters
    assert plan.caches == 2**30, "one GiB for 8192 tokens"
    assert plan.fits == 0
    fewer = memory_plan(place, members=8, context=2048, available=24 * 10**9)
    assert fewer.fits == 19
    refuse_over(fewer)
    with pytest.raises(PluriaError, match=r"40 members take 29\.4 GB and 24 GB are free: 19 of them fit"):
        refuse_over(memory_plan(place, members=40, context=2048, available=24 * 10**9))
    with pytest.raises(PluriaError, match="not even one fits"):
        refuse_over(memory_plan(place, members=1, available=10**9))
    (place / "model-2.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"the shard model-2\.safetensors is missing"):
        memory_plan(place)


def test_bad_input(tmp_path: Path) -> None:
    place = folder(tmp_path / "net", LLAMA, SHAPES)
    with pytest.raises(ValueError, match="texts of up to 64 tokens; got a context of 65"):
        memory_plan(place, context=65)
    with pytest.raises(ValueError, match="members is a whole number from 1; got 0"):
        memory_plan(place, members=0)
    with pytest.raises(ValueError, match="'rounded' or 'codes'; got 'planes'"):
        memory_plan(place, kept="planes", context=8)  # type: ignore[arg-type]
    (tmp_path / "empty").mkdir()
    with pytest.raises(CheckpointError, match=r"it has no config\.json"):
        memory_plan(tmp_path / "empty")
    quantised = folder(tmp_path / "gptq", {**LLAMA, "quantization_config": {"quant_method": "gptq"}}, SHAPES)
    with pytest.raises(CheckpointError, match="quantised already"):
        memory_plan(quantised, context=8)
    for text, said in (("{", "is not JSON"), ("[]", "holds no mapping")):
        (place / "config.json").write_text(text)
        with pytest.raises(CheckpointError, match=said):
            memory_plan(place, context=8)


def test_bytes_in_words() -> None:
    found = [readable(count) for count in (12, 1500, 16_059_990_016, 123_400_000)]
    assert found == ["12 bytes", "1.5 kB", "16.1 GB", "123 MB"]
