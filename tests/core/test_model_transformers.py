"""Roles and scales of Hugging Face networks, made from tiny random configurations."""

import logging
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

from core.scales import check_scales
from pluria.core.model import ROUNDED, Role, roles, ties
from pluria.core.rounded import Rounded
from pluria.predict import gather, predict
from pluria.sample import low_precision

SMALL = {"hidden_size": 8, "intermediate_size": 12, "num_hidden_layers": 1, "num_attention_heads": 2}
TOKENS = {"input_ids": torch.tensor([[1, 2, 3], [4, 5, 6]]), "attention_mask": torch.ones(2, 3, dtype=torch.int64)}


@pytest.fixture(scope="module")
def models() -> Iterator[dict[str, nn.Module]]:
    """GPT-2 (inputs first, tied head), Llama (untied head), BERT (tied head) and ViT."""
    pytest.importorskip("transformers", reason="transformers is not installed")
    from transformers import (
        BertConfig,
        BertForMaskedLM,
        GPT2Config,
        GPT2LMHeadModel,
        LlamaConfig,
        LlamaForCausalLM,
        ViTConfig,
        ViTForImageClassification,
    )

    logging.disable(logging.WARNING)
    torch.manual_seed(0)
    words = {"vocab_size": 11, "bos_token_id": 0, "eos_token_id": 0}
    yield {
        "gpt2": GPT2LMHeadModel(GPT2Config(n_embd=8, n_layer=1, n_head=2, n_positions=6, **words)),
        "llama": LlamaForCausalLM(LlamaConfig(**SMALL, **words, num_key_value_heads=1, tie_word_embeddings=False)),
        "bert": BertForMaskedLM(BertConfig(**SMALL, vocab_size=11, max_position_embeddings=6)),
        "vit": ViTForImageClassification(ViTConfig(**SMALL, image_size=8, patch_size=4)),
    }
    logging.disable(logging.NOTSET)


def rounded(model: nn.Module) -> dict[str, Role]:
    """Names that are rounded by default, ties once, with their roles."""
    found, first = roles(model), ties(model)
    shapes = {name: value.ndim for name, value in model.state_dict().items()}
    return {n: r for n, r in found.items() if r.kind in ROUNDED and shapes[n] >= 2 and first[n] == n}


def test_gpt2_has_inputs_first_and_a_tied_head(models: dict[str, nn.Module]) -> None:
    block = "transformer.h.0."
    inputs_first = [block + name for name in ("attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj")]
    assert rounded(models["gpt2"]) == {
        "transformer.wte.weight": Role("embedding"),
        "transformer.wpe.weight": Role("embedding"),
        **{f"{name}.weight": Role("linear", axis=1) for name in inputs_first},
    }
    assert ties(models["gpt2"])["lm_head.weight"] == "transformer.wte.weight"


def test_llama_keeps_its_untied_head(models: dict[str, nn.Module]) -> None:
    layer = "model.layers.0."
    names = [f"self_attn.{n}_proj" for n in "qkvo"] + [f"mlp.{n}_proj" for n in ("gate", "up", "down")]
    assert rounded(models["llama"]) == {
        "model.embed_tokens.weight": Role("embedding"),
        **{f"{layer}{name}.weight": Role("linear") for name in names},
    }
    assert roles(models["llama"])["lm_head.weight"] == Role("head")
    assert roles(models["llama"])["model.norm.weight"] == Role("norm")


def test_bert_rounds_all_matrices(models: dict[str, nn.Module]) -> None:
    model = models["bert"]
    assert set(rounded(model)) == {
        name for name, value in model.state_dict().items() if value.ndim == 2 and "decoder" not in name
    }
    assert ties(model)["cls.predictions.decoder.weight"] == "bert.embeddings.word_embeddings.weight"
    assert {role.axis for role in rounded(model).values()} == {0}


def test_vit_keeps_token_and_positions(models: dict[str, nn.Module]) -> None:
    model = models["vit"]
    found = rounded(model)
    assert found["vit.embeddings.patch_embeddings.projection.weight"] == Role("conv")
    assert found["classifier.weight"] == Role("linear")
    left = {name for name, value in model.state_dict().items() if value.ndim >= 2 and name not in found}
    assert left == {"vit.embeddings.cls_token", "vit.embeddings.position_embeddings"}


@pytest.mark.parametrize("kind", ["gpt2", "llama", "bert", "vit"])
def test_each_output_has_its_own_scale(models: dict[str, nn.Module], kind: str) -> None:
    model, found = models[kind], rounded(models[kind])
    checked = 0
    for prefix, module in model.named_modules():
        role = found.get(f"{prefix}.weight")
        if role is not None and role.kind == "linear":
            inputs = module.weight.shape[0 if role.axis else 1]
            x = torch.randn(3, inputs, generator=torch.Generator().manual_seed(1))
            check_scales(module.weight, role, lambda layer=module, x=x: layer(x))
            checked += 1
    assert checked >= 4


@pytest.mark.parametrize("kind", ["gpt2", "llama", "bert", "vit"])
def test_members_run(models: dict[str, nn.Module], kind: str) -> None:
    model = models[kind]
    inputs: dict[str, Tensor] = {"pixel_values": torch.randn(2, 3, 8, 8)} if kind == "vit" else TOKENS
    ensemble = low_precision(model, format="int4", members=3)
    outputs, targets = gather(predict(model, ensemble, [inputs]))
    assert outputs.shape == ((3, 2, 2) if kind == "vit" else (3, 2, 3, 11))
    assert targets is None
    assert not torch.equal(outputs[0], outputs[1])


def test_a_tied_head_is_rounded_once(models: dict[str, nn.Module]) -> None:
    families = low_precision(models["gpt2"], members=2).families
    head, embedding = families["lm_head.weight"], families["transformer.wte.weight"]
    assert isinstance(head, Rounded)
    assert head is embedding
    params = low_precision(models["gpt2"], members=2).params(1)
    assert params["lm_head.weight"] is params["transformer.wte.weight"]
