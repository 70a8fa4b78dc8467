"""Several prompts at once, and networks with an encoder, against each prompt alone and transformers' own generate."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import pluria
from language.words import TEXT, tokenizer
from pluria.core.params import params_of
from pluria.language import generate, generate_batch
from pluria.language.generate import padded
from store.tiny import tiny

pytest.importorskip("transformers", reason="transformers is not installed")

PROMPTS = [torch.tensor(one) for one in ([3, 7, 1, 5], [9], [2, 2, 8, 1, 4, 6, 10], [5, 3])]
BACKENDS = ["loop", "side_by_side"]


def bart(words: int = 61) -> nn.Module:
    """A network with an encoder and positions that are counted, and ends that are not its start."""
    import transformers as t

    sizes = {"d_model": 8, "encoder_layers": 1, "decoder_layers": 2, "encoder_attention_heads": 2}
    sizes |= {"decoder_attention_heads": 2, "encoder_ffn_dim": 12, "decoder_ffn_dim": 12, "max_position_embeddings": 16}
    ends = {"eos_token_id": 2, "decoder_start_token_id": 2, "forced_eos_token_id": None, "init_std": 0.6}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return t.BartForConditionalGeneration(t.BartConfig(vocab_size=words, **sizes, **ends)).eval()


def network(kind: str) -> Any:
    return bart() if kind == "bart" else tiny(kind, context=32, words=61)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("kind", ["llama", "gpt2", "t5", "bart"])
def test_every_text_of_a_batch_is_what_its_prompt_alone_gives(kind: str, backend: Any) -> None:
    model = network(kind)
    members = pluria.low_precision(model, format="int3", members=3).reweight(torch.tensor([1.0, 3.0, 2.0]))
    how: dict[str, Any] = {"max_new_tokens": 9, "stop": (), "backend": backend, "temperature": 0.7}
    found = generate_batch(model, members, PROMPTS, seed=5, **how)
    for i, (one, prompt) in enumerate(zip(found, PROMPTS, strict=True)):
        alone = generate(model, members, prompt, seed=5 + i, **how)
        assert torch.equal(one.prompt, prompt)
        assert torch.equal(one.tokens, alone.tokens)
        for name in ("log_probs", "agreement", "mutual_information"):
            torch.testing.assert_close(getattr(one, name), getattr(alone, name), atol=1e-5, rtol=1e-4)
    assert len({tuple(one.tokens.tolist()) for one in found}) == 4


@pytest.mark.parametrize("kind", ["llama", "gpt2", "t5", "bart"])
def test_equal_members_write_what_the_network_writes_for_padded_prompts(kind: str) -> None:
    model = network(kind)
    behind = kind in ("t5", "bart")
    tokens, mask = padded(PROMPTS, front=not behind)
    wanted = model.generate(tokens, attention_mask=mask, max_new_tokens=8, min_new_tokens=8, do_sample=False)
    if not behind:
        wanted = wanted[:, tokens.shape[1] :]
    ends = torch.as_tensor(model.generation_config.eos_token_id or 0)
    found = generate_batch(model, pluria.stack([params_of(model)] * 3), PROMPTS, max_new_tokens=8, stop=())
    for one, row in zip(found, wanted[:, -8:], strict=True):
        # What transformers forbids before so many tokens, the end, is where the two may part.
        same = len(row) if int(ends) not in one.tokens else one.tokens.tolist().index(int(ends))
        assert one.tokens[:same].tolist() == row[:same].tolist()
        assert float(one.mutual_information.max()) < 1e-9
    assert sum(int(ends) not in one.tokens for one in found) >= 2


def test_texts_end_one_by_one() -> None:
    model: Any = network("llama")
    members = pluria.low_precision(model, format="int4", members=2)
    free = generate_batch(model, members, PROMPTS, max_new_tokens=10, stop=())
    end = int(free[0].tokens[2])
    found = generate_batch(model, members, PROMPTS, max_new_tokens=10, stop=[end])
    for one, whole in zip(found, free, strict=True):
        places = (whole.tokens == end).nonzero()[:, 0].tolist()
        assert torch.equal(one.tokens, whole.tokens[: places[0] + 1 if places else 10])
        assert one.stopped == bool(places)
    assert len({len(one.tokens) for one in found}) > 1


@pytest.mark.parametrize("kind", ["t5", "bart"])
def test_a_decoder_behind_an_encoder_says_what_it_says_without_a_cache(kind: str) -> None:
    model = network(kind)
    members = pluria.low_precision(model, format="int3", members=3)
    found = generate(model, members, PROMPTS[0], max_new_tokens=6, stop=())
    start = torch.tensor([model.config.decoder_start_token_id])
    shifted = torch.cat([start, found.tokens[:-1]])
    rows: list[Tensor] = []
    for member in members.members:
        alone: Any = network(kind)
        members.write(member, alone.state_dict())
        with torch.no_grad():
            said = alone(input_ids=PROMPTS[0][None], decoder_input_ids=shifted[None]).logits[0]
        rows.append(said.double().log_softmax(-1))
    pooled = torch.stack(rows).exp().mean(0).log()
    assert found.tokens.tolist() == pooled.argmax(-1).tolist()
    torch.testing.assert_close(found.log_probs, pooled.amax(-1), atol=1e-5, rtol=1e-5)
    same = torch.stack([row.argmax(-1) == found.tokens for row in rows]).double().mean(0)
    torch.testing.assert_close(found.agreement, same)
    assert float(same.min()) < 1.0


def test_a_text_behind_an_encoder_is_one_of_its_own() -> None:
    model, words = tiny("t5"), tokenizer()
    found = generate(model, pluria.low_precision(model, members=2), TEXT, tokenizer=words, max_new_tokens=5, stop=())
    assert found.prompt_text == TEXT + "\n"
    assert found.text == words.decode(found.tokens, skip_special_tokens=True)


def test_what_does_not_serve() -> None:
    model = tiny("llama")
    members = pluria.single(params_of(model))
    for prompts in ([], "the cat", torch.tensor([1, 2])):
        with pytest.raises(ValueError, match="prompts are a list of one or more"):
            generate_batch(model, members, prompts)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="a prompt has one token or more"):
        generate_batch(model, members, [[1], []], max_new_tokens=1)
    with pytest.raises(ValueError, match="a prompt of 16 leaves none"):
        generate_batch(model, members, [[1], [1] * 16], max_new_tokens=1)
    both, each = bart(), {"max_new_tokens": 16}
    assert len(generate(both, pluria.single(params_of(both)), [1] * 16, stop=(), **each).tokens) == 16
    with pytest.raises(ValueError, match="a prompt of 17 leaves none"):
        generate(both, pluria.single(params_of(both)), [1] * 17, max_new_tokens=1)
    with pytest.raises(ValueError, match="leaves room for 16 new ones: ask for no more; got 17"):
        generate(both, pluria.single(params_of(both)), [1] * 16, max_new_tokens=17)
    lost: Any = tiny("t5")
    for held in (lost.config, lost.generation_config):
        held.decoder_start_token_id = held.bos_token_id = None
    with pytest.raises(ValueError, match="T5ForConditionalGeneration has no decoder_start_token_id"):
        generate(lost, pluria.single(params_of(lost)), [1])
