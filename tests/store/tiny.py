"""Hugging Face networks of tiny random configurations, made in memory or saved as folders."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from torch import nn

SMALL = {"hidden_size": 8, "intermediate_size": 12, "num_hidden_layers": 2, "num_attention_heads": 2}
KINDS = ("llama", "gpt2", "bert", "vit", "t5")


def tiny(kind: str, *, words: int = 11, context: int = 16, **options: Any) -> nn.Module:
    """A random network in evaluation mode; the global generator stays as it was."""
    import transformers as t

    ends = {"vocab_size": words, "bos_token_id": 0, "eos_token_id": 0}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        if kind == "llama":
            untied = {"num_key_value_heads": 1, "tie_word_embeddings": False, "max_position_embeddings": context}
            model: nn.Module = t.LlamaForCausalLM(t.LlamaConfig(**{**SMALL, **ends, **untied, **options}))
        elif kind == "gpt2":
            sizes = {"n_embd": 8, "n_layer": 2, "n_head": 2, "n_positions": context}
            model = t.GPT2LMHeadModel(t.GPT2Config(**{**sizes, **ends, **options}))
        elif kind == "bert":
            sizes = {"vocab_size": words, "max_position_embeddings": context}
            model = t.BertForMaskedLM(t.BertConfig(**{**SMALL, **sizes, **options}))
        elif kind == "vit":
            model = t.ViTForImageClassification(t.ViTConfig(**{**SMALL, "image_size": 8, "patch_size": 4, **options}))
        else:
            sizes = {"d_model": 8, "d_kv": 4, "d_ff": 12, "num_layers": 1, "num_heads": 2, "vocab_size": words}
            model = t.T5ForConditionalGeneration(t.T5Config(**{**sizes, "decoder_start_token_id": 0, **options}))
        for parameter in model.parameters():  # transformers starts with weights so small that nothing depends on them
            parameter.data.add_(0.3 * torch.randn_like(parameter))
    return model.eval()


def saved(model: nn.Module, folder: Path, **options: Any) -> Path:
    """The network as transformers saves it."""
    from pluria.store.pretrained import hugging_face, without_bars

    with without_bars(hugging_face()):
        model.save_pretrained(folder, **options)  # type: ignore[operator]
    return folder


def copied(folder: Path, to: Path, **config: Any) -> Path:
    """A copy of a folder with some keys of its configuration changed."""
    shutil.copytree(folder, to)
    held = json.loads((to / "config.json").read_text())
    (to / "config.json").write_text(json.dumps({**held, **config}))
    return to
