"""Members as rows of one batch say what they say one after the other; what cannot be rows is refused or left alone."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

import pluria
from pluria.core.model import working_copy
from pluria.language import generate, generate_batch
from pluria.language.ready import FEWEST, checked
from pluria.language.rows import RowsEmbedding, RowsLinear, Unlike
from pluria.language.steps import Backend, Steps, member_bytes
from pluria.numbers import kernel
from pluria.store.export import packed
from store.tiny import tiny

pytest.importorskip("transformers", reason="transformers is not installed")

PROMPTS = [torch.tensor([1, 2, 3, 4, 5]), torch.tensor([6, 7]), torch.tensor([8])]


def tied(count: int = 61) -> nn.Module:
    """A Llama whose head is its embedding."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    sizes: dict[str, Any] = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2}
    config = LlamaConfig(vocab_size=count, num_attention_heads=2, tie_word_embeddings=True, **sizes)
    model: nn.Module = LlamaForCausalLM(config)
    return model.eval()


def logits(model: nn.Module, members: pluria.Ensemble, backend: Backend, *tokens: torch.Tensor) -> torch.Tensor:
    """Of the last of several steps."""
    steps = Steps(working_copy(model), members, backend)
    for some in tokens:
        found = steps(some)
    return found


@pytest.mark.parametrize("members", [1, 3, 8, 11])
@pytest.mark.parametrize("kind", ["llama", "tied"])
@pytest.mark.parametrize("form", [("int4", "channel"), ("int5-asymmetric", 4), ("int3", "tensor")])
def test_rows_say_what_members_say(kind: str, members: int, form: tuple[str, Any]) -> None:
    model = tied() if kind == "tied" else tiny("llama")
    made = pluria.low_precision(model, format=form[0], granularity=form[1], members=members)
    tokens = torch.tensor([[1, 2, 3, 4, 5, 6], [7, 8, 9, 1, 2, 3]]), torch.tensor([[4], [5]])
    rows, loop = (logits(model, made, backend, *tokens) for backend in ("rows", "loop"))  # type: ignore[arg-type]
    assert rows.shape == (members, 2, model.config.vocab_size)
    torch.testing.assert_close(rows, loop, rtol=1e-4, atol=1e-4)
    if members > 1:
        assert (rows[0] - rows[1]).abs().max() > 1e-3


def test_every_layer_that_differs_is_replaced_and_a_tied_one_held_once() -> None:
    model = tied()
    steps = Steps(working_copy(model), pluria.low_precision(model, format="int4", members=3), "rows")
    steps(torch.tensor([[1, 2]]))
    found = [module for module in steps.twin.modules() if isinstance(module, RowsLinear | RowsEmbedding)]
    assert len(found) == 2 * 7 + 2
    assert not any(type(module) in (nn.Linear, nn.Embedding) for module in steps.twin.modules())
    assert len({id(module.operand) for module in found}) == 2 * 7 + 1


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_texts_are_those_of_the_other_ways(dtype: torch.dtype) -> None:
    model = tied()
    made = pluria.low_precision(model, format="int4", members=4)
    texts = {
        backend: [one.tokens for one in generate_batch(model, made, PROMPTS, backend=backend, dtype=dtype, stop=())]
        for backend in ("rows", "side_by_side")  # type: ignore[union-attr]
    }
    same = [torch.equal(a, b) for a, b in zip(*texts.values(), strict=True)]
    assert all(same) if dtype == torch.float32 else any(same)  # in 16 bits, near ties may fall to another side


def test_stored_planes_are_rows_too() -> None:
    model = tied()
    made = pluria.low_precision(model, format="int4", members=4)
    tokens = torch.tensor([[1, 2, 3]])
    assert torch.equal(logits(model, packed(made, form="planes"), "rows", tokens), logits(model, made, "rows", tokens))


def test_rows_are_taken_where_they_are_faster(monkeypatch: pytest.MonkeyPatch) -> None:
    def way(model: nn.Module, made: pluria.Ensemble, available: int | None = 10**9) -> str:
        options: dict[str, Any] = {"tokenizer": None, "max_new_tokens": 2, "pool": "probability", "device": None}
        ready = checked(model, made, PROMPTS, backend="auto", available=available, dtype=None, **options)
        return ready.backend

    model, many = tied(), {"format": "int4", "members": FEWEST}
    made = pluria.low_precision(model, **many)  # type: ignore[arg-type]
    assert way(model, made) == "rows"
    assert way(model, made.first(FEWEST - 1)) == "side_by_side"
    sizes: dict[str, Any] = {"read": 5, "new": 2, "batch": 3, "width": 4}
    rows, beside, loop = (member_bytes(model, made, backend=one, **sizes) for one in ("rows", "side_by_side", "loop"))  # type: ignore[arg-type]
    assert loop < rows < beside
    assert way(model, made, 2 * FEWEST * rows) == "rows"
    assert way(model, made, 2 * FEWEST * rows - 1) == "loop"
    assert way(tiny("gpt2"), pluria.low_precision(tiny("gpt2"), **many)) == "side_by_side"  # type: ignore[arg-type]
    monkeypatch.setattr(kernel, "available", lambda device: False)
    assert way(model, made) == "side_by_side"


def test_bytes_of_rows() -> None:
    """A byte of floor codes for all members, and a byte of bits for each eight."""
    model = tied()
    made = pluria.low_precision(model, format="int4", members=16)
    sizes: dict[str, Any] = {"read": 1, "new": 1, "batch": 1, "width": 4}
    rows, loop = (member_bytes(model, made, backend=one, **sizes) for one in ("rows", "loop"))  # type: ignore[arg-type]
    count = sum(family.shape.numel() for name, family in made.families.items() if "norm" not in name)
    count -= made.families["lm_head.weight"].shape.numel()  # tied
    assert rows - loop == -(-count * 3 // 16)


def test_what_cannot_be_rows_is_refused() -> None:
    from transformers import (
        GemmaConfig,
        GemmaForCausalLM,
        MixtralConfig,
        MixtralForCausalLM,
        T5Config,
        T5ForConditionalGeneration,
    )

    def refused(model: nn.Module, said: str, **options: Any) -> None:
        made = pluria.low_precision(model, members=3, **{"format": "int4", **options})
        with pytest.raises(ValueError, match=f"cannot be rows of one batch: {said}"):
            generate(model, made, torch.tensor([1, 2]), backend="rows", max_new_tokens=1)

    refused(tiny("gpt2"), ".* is 'weight' of Conv1D, no plain layer")
    refused(tied(), ".* in fp4-e2m1; a matrix in an integer format", format="fp4-e2m1")
    sizes: dict[str, Any] = {"num_attention_heads": 2, "num_key_value_heads": 2, "num_hidden_layers": 1}
    small = {"hidden_size": 8, "intermediate_size": 8, "head_dim": 4}
    scaled = GemmaForCausalLM(GemmaConfig(vocab_size=11, **small, **sizes))
    # Its embedding multiplies what it looks up, and its head, with the same weight, does not.
    refused(scaled, ".* is 'weight' of GemmaTextScaledWordEmbedding, no plain layer")
    experts = MixtralConfig(vocab_size=11, hidden_size=8, intermediate_size=8, num_local_experts=2, **sizes)
    refused(MixtralForCausalLM(experts), "its experts take rows out of their order")
    both = T5Config(vocab_size=11, d_model=8, d_kv=4, d_ff=8, num_layers=1, num_heads=2, decoder_start_token_id=0)
    refused(T5ForConditionalGeneration(both), "it has an encoder")


@pytest.mark.parametrize("broken", ["other words", "no weight"])
def test_rows_that_say_something_else_are_seen(broken: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = tied()
    made = pluria.low_precision(model, format="int4", members=3)
    wanted = generate(model, made, PROMPTS[0], backend="loop", max_new_tokens=4, stop=())
    right = RowsEmbedding.forward

    def wrong(self: RowsEmbedding, tokens: torch.Tensor) -> torch.Tensor:
        return right(self, tokens.flip(0)) * 2 if broken == "other words" else self.weight  # type: ignore[return-value]

    monkeypatch.setattr(RowsEmbedding, "forward", wrong)
    with pytest.raises(Unlike, match="say something else" if broken == "other words" else "no attribute 'weight'"):
        generate(model, made, PROMPTS[0], backend="rows", max_new_tokens=4)
    assert torch.equal(generate(model, made, PROMPTS[0], max_new_tokens=4, stop=()).tokens, wanted.tokens)


def test_rows_that_are_not_those_of_all_members_are_refused() -> None:
    layer = nn.Linear(8, 8)
    from pluria.predict.kernels.operands import planes

    made = pluria.low_precision(layer, format="int4", members=3)
    held = planes(made.families["weight"], made.members)
    with pytest.raises(ValueError, match="rows of 3 members, as many of each"):
        RowsLinear(held, None)(torch.zeros(4, 8))
