"""Groups of real architectures, small: residual stream, hidden places, whole heads, values inside a head."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from align.networks import shuffled
from pluria.align import infer_groups, permuted, rebasin
from pluria.core.ensemble import stack
from pluria.core.params import params_of

transformers: Any = pytest.importorskip("transformers", reason="transformers is not installed")
WORDS = {"vocab_size": 50, "bos_token_id": 0, "eos_token_id": 1}
SMALL = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 4, "intermediate_size": 12}


def networks(kind: str) -> tuple[nn.Module, torch.Tensor]:
    torch.manual_seed(0)
    words = torch.randint(0, 50, (4, 7))
    if kind == "gpt2":
        config = transformers.GPT2Config(n_layer=1, n_embd=16, n_head=4, n_positions=16, use_cache=False, **WORDS)
        return transformers.GPT2LMHeadModel(config).eval(), words
    if kind == "llama":
        config = transformers.LlamaConfig(num_key_value_heads=2, use_cache=False, **SMALL, **WORDS)
        return transformers.LlamaForCausalLM(config).eval(), words
    if kind == "bert":
        return transformers.BertForSequenceClassification(transformers.BertConfig(**SMALL, vocab_size=50)).eval(), words
    config = transformers.ViTConfig(**SMALL, image_size=16, patch_size=4)
    return transformers.ViTForImageClassification(config).eval(), torch.randn(4, 3, 16, 16)


@pytest.mark.parametrize(("kind", "count", "within"), [("gpt2", 5, 2), ("llama", 5, 2), ("bert", 6, 2), ("vit", 5, 2)])
def test_a_permuted_copy_is_the_same_function_and_is_recovered(kind: str, count: int, within: int) -> None:
    model, x = networks(kind)
    groups, params = infer_groups(model, x[:1]), params_of(model)
    assert (len(groups.sizes), len(groups.within)) == (count, within)
    moved = permuted(params, groups, shuffled(groups))
    aligned = rebasin(model, stack([params, moved]), [x]).params(1)  # refuses where outputs change
    assert all(torch.equal(aligned[name], params[name]) for name in params)


def test_grouped_queries_by_hand() -> None:
    model, x = networks("llama")
    axes = infer_groups(model, x).axes
    block, stream = "model.layers.0.self_attn", "model.embed_tokens.out"
    pairs, queries, values = f"{block}.q_proj.out", f"{block}.q_proj.out2", f"{block}.v_proj.out"
    # Rotary positions keep the places inside a key's head; values may move, and so may the queries of each key.
    assert axes[f"{block}.q_proj.weight"] == (f"{pairs}*{queries}*4", stream)
    assert axes[f"{block}.k_proj.weight"] == (f"{pairs}*4", stream)
    assert axes[f"{block}.v_proj.weight"] == (f"{pairs}*{values}", stream)
    assert axes[f"{block}.o_proj.weight"] == (stream, f"{pairs}*{queries}*{values}")
