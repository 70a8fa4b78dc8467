"""The small storyteller among the real data as a transformers Llama, and stories that it tells itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn


def storyteller(file: Path) -> nn.Module:
    """The network of a llama2.c file: seven int32 numbers, then float32 tensors, layer after layer within each kind."""
    from transformers import LlamaConfig, LlamaForCausalLM

    dim, hidden, layers, heads, kv, words, longest = np.fromfile(file, np.int32, 7).tolist()
    flat, at = torch.from_numpy(np.fromfile(file, np.float32, offset=28)), 0
    config = LlamaConfig(
        hidden_size=dim, intermediate_size=hidden, num_hidden_layers=layers, num_attention_heads=heads,
        num_key_value_heads=kv, vocab_size=words, max_position_embeddings=longest, rms_norm_eps=1e-5,
        tie_word_embeddings=True, bos_token_id=1, eos_token_id=2,
    )  # fmt: skip
    model, width = LlamaForCausalLM(config).eval(), dim // heads * kv

    def take(*shape: int) -> Tensor:
        nonlocal at
        count = int(np.prod(shape))
        at += count
        return flat[at - count : at].view(shape)

    def halves(weight: Tensor, count: int) -> Tensor:
        """Rows from pairs of neighbours, as they are turned there, to halves."""
        return weight.view(count, -1, 2, dim).transpose(1, 2).reshape(weight.shape)

    held: dict[str, Tensor] = {"model.embed_tokens.weight": take(words, dim)}
    kinds: dict[str, tuple[Any, ...]] = {
        "input_layernorm": (dim,), "self_attn.q_proj": (dim, dim), "self_attn.k_proj": (width, dim),
        "self_attn.v_proj": (width, dim), "self_attn.o_proj": (dim, dim), "post_attention_layernorm": (dim,),
        "mlp.gate_proj": (hidden, dim), "mlp.down_proj": (dim, hidden), "mlp.up_proj": (hidden, dim),
    }  # fmt: skip
    for name, shape in kinds.items():
        for layer, value in enumerate(take(layers, *shape)):
            turned = halves(value, heads) if ".q_" in name else halves(value, kv) if ".k_" in name else value
            held[f"model.layers.{layer}.{name}.weight"] = turned.clone()
    held["model.norm.weight"] = take(dim)
    missing = model.load_state_dict(held, strict=False)
    assert missing.missing_keys == ["lm_head.weight"]
    assert not missing.unexpected_keys
    return model


def stories(model: nn.Module, count: int, length: int, seed: int) -> Tensor:
    """Token ids `[count, length]`, drawn from the model itself."""
    ids = torch.ones(count, 1, dtype=torch.int64)
    generator = torch.Generator().manual_seed(seed)
    cache = None
    with torch.no_grad():
        for _ in range(length - 1):
            out = model(input_ids=ids[:, -1:], past_key_values=cache, use_cache=True)
            cache = out.past_key_values
            ids = torch.cat([ids, torch.multinomial(out.logits[:, -1].softmax(-1), 1, generator=generator)], 1)
    return ids
