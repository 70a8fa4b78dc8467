"""Text of ensembles against transformers' own generate and against averages that keep no cache."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import pluria
from language.words import TEXT, tokenizer
from pluria.core.errors import CheckpointError
from pluria.core.params import params_of
from pluria.language import averages, generate, generate_batch, tokens_of
from pluria.language.ready import checked
from pluria.language.steps import Steps
from store.tiny import tiny

pytest.importorskip("transformers", reason="transformers is not installed")

PROMPT = torch.tensor([3, 7, 1, 5])
BACKENDS = ["loop", "side_by_side"]


def equal(model: nn.Module, count: int) -> pluria.Ensemble:
    return pluria.stack([params_of(model)] * count)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("kind", ["llama", "gpt2"])
@pytest.mark.parametrize("pool", ["probability", "logit"])
def test_equal_members_write_what_the_network_writes(kind: str, backend: Any, pool: Any) -> None:
    model: Any = tiny(kind, context=32, words=61)
    wanted = model.generate(
        PROMPT[None], max_new_tokens=12, do_sample=False, output_scores=True, return_dict_in_generate=True
    )
    found = generate(model, equal(model, 3), PROMPT, max_new_tokens=12, backend=backend, pool=pool)
    assert found.tokens.tolist() == wanted.sequences[0, 4:].tolist()
    words = torch.cat(wanted.scores).double().log_softmax(-1)
    torch.testing.assert_close(found.log_probs, words.gather(-1, found.tokens[:, None])[:, 0], atol=1e-5, rtol=1e-5)
    assert bool((found.agreement - 1).abs().max() < 1e-12)
    assert float(found.mutual_information.max()) < 1e-9
    assert len(set(found.tokens.tolist())) > 1


def test_a_token_that_ends_the_text() -> None:
    model: Any = tiny("llama", context=32, words=61)
    free = generate(model, equal(model, 2), PROMPT, max_new_tokens=12, stop=())
    assert (len(free.tokens), free.stopped) == (12, False)
    end = int(free.tokens[5])
    model.generation_config.eos_token_id = [end, 60]
    model.generation_config.pad_token_id = 0
    wanted = model.generate(PROMPT[None], max_new_tokens=12, do_sample=False)[0, 4:]
    found = generate(model, equal(model, 2), PROMPT, max_new_tokens=12)
    assert found.tokens.tolist() == wanted.tolist()
    assert (int(found.tokens[-1]), found.stopped) == (end, True)
    model.generation_config.eos_token_id = None
    model.config.eos_token_id = end
    assert generate(model, equal(model, 2), PROMPT, max_new_tokens=12).tokens.tolist() == wanted.tolist()


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("kind", ["llama", "gpt2"])
@pytest.mark.parametrize("rule", ["probability", "logit"])
def test_every_step_is_what_averages_say_without_a_cache(kind: str, rule: Any, backend: Any) -> None:
    model = tiny(kind, context=32, words=61)
    members = pluria.low_precision(model, format="int3", members=4).reweight(torch.tensor([1.0, 0.0, 3.0, 2.0]))
    found = generate(model, members, PROMPT, max_new_tokens=9, backend=backend, pool=rule, stop=())
    whole = torch.cat([PROMPT, found.tokens])
    targets = torch.full((1, len(whole) - 1), -100)
    targets[0, len(PROMPT) - 1 :] = found.tokens
    ((_, wanted),) = averages(model, members, [(whole[None, :-1], targets)], rule=rule)
    assert found.tokens.tolist() == wanted.pooled.argmax(-1).tolist()
    chosen = wanted.pooled.gather(-1, found.tokens[:, None])[:, 0].double()
    torch.testing.assert_close(found.log_probs, chosen, atol=2e-6, rtol=1e-5)
    same = (wanted.weights[:, None] * (wanted.tops == found.tokens)).sum(0)
    torch.testing.assert_close(found.agreement, same)
    assert float(same.min()) < 1.0
    if rule == "probability":
        pooled = -(wanted.pooled.exp() * wanted.pooled).sum(-1)
        apart = pooled - (wanted.weights[:, None] * wanted.entropies).sum(0)
    else:
        apart = chosen - (wanted.weights[:, None] * wanted.log_probs).sum(0)
    torch.testing.assert_close(found.mutual_information, apart, atol=2e-6, rtol=1e-4)
    assert found.members == 3  # one has weight zero


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_whole_distribution_of_each_step(backend: Any) -> None:
    model = tiny("gpt2", context=32, words=61)  # its head is tied to the embedding
    members = pluria.low_precision(model, format="int3", members=3)
    whole = torch.randint(0, 61, (9,), generator=torch.Generator().manual_seed(0))
    steps = Steps(tiny("gpt2", context=32, words=61), members, backend)
    rows = [steps(part[None]) for part in (whole[:4], whole[4:6], whole[6:7], whole[7:])]
    for length, row in zip((4, 6, 7, 9), rows, strict=True):
        for member, words in zip(members.members, row[:, 0], strict=True):
            alone: Any = tiny("gpt2", context=32, words=61)
            members.write(member, alone.state_dict())
            with torch.no_grad():
                wanted = alone(whole[None, :length]).logits[0, -1].double()
            torch.testing.assert_close(words, wanted, atol=1e-5, rtol=1e-5)


def test_what_is_drawn_repeats_with_its_seed() -> None:
    model = tiny("llama", context=32, words=61)
    members = pluria.low_precision(model, format="int4", members=2)

    def drawn(seed: int, **options: Any) -> Tensor:
        settings = {"temperature": 1.5, "max_new_tokens": 12, "stop": (), **options}
        return generate(model, members, PROMPT, seed=seed, **settings).tokens

    state = torch.get_rng_state()
    assert torch.equal(drawn(1), drawn(1))
    assert torch.equal(drawn(1), drawn(1, backend="side_by_side"))
    assert torch.equal(drawn(1)[:5], drawn(1, max_new_tokens=5))
    assert not torch.equal(drawn(1), drawn(2))
    assert torch.equal(drawn(1, top_k=1), generate(model, members, PROMPT, max_new_tokens=12, stop=()).tokens)
    assert torch.equal(torch.get_rng_state(), state)


def test_a_text_with_its_tokenizer() -> None:
    model, words = tiny("llama", context=32), tokenizer()
    members = pluria.low_precision(model, members=2)
    found = generate(model, members, TEXT, tokenizer=words, max_new_tokens=8, stop=())
    assert torch.equal(found.prompt, tokens_of(words, TEXT))
    assert found.prompt_text == TEXT
    assert found.prompt_text + found.text == words.decode(
        torch.cat([found.prompt, found.tokens]), skip_special_tokens=True
    )
    plain = generate(model, members, found.prompt.tolist(), max_new_tokens=8, stop=())
    assert plain.text == "".join(f" {token}" for token in found.tokens.tolist())


def test_the_model_is_not_touched() -> None:
    model = tiny("gpt2")
    before = {name: value.clone() for name, value in model.state_dict().items()}
    for backend in BACKENDS:
        generate(model, pluria.low_precision(model, members=2), PROMPT, max_new_tokens=3, backend=backend)  # type: ignore[arg-type]
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_memory_says_how_many_members_fit() -> None:
    model = tiny("llama")
    members = pluria.low_precision(model, members=8)
    numbers = sum(value.numel() for name, value in model.state_dict().items() if value.ndim == 2 and "head" not in name)
    cache = 4 * 2 * 2 * 1 * 4 * 6  # bytes, layers, keys and values, one head of size 4, six tokens
    words = 11 * 16  # logits and log-probabilities of one token
    each = 4 * numbers + cache + words
    options: dict[str, Any] = {"max_new_tokens": 2, "backend": "side_by_side"}
    assert generate(model, members, PROMPT, available=8 * each, **options).members == 8
    with pytest.raises(ValueError, match=r"8 members take .* 7 fit\. Take fewer members, or backend='loop'"):
        generate(model, members, PROMPT, available=8 * each - 1, **options)
    options["backend"] = "loop"
    with pytest.raises(ValueError, match=r"take 560 bytes each .*: 3 fit\. Take fewer members, or shorter"):
        generate(model, members, PROMPT, available=4 * (cache + words) - 1, **options)
    assert generate(model, members, PROMPT, available=8 * (cache + words), **options).members == 8
    with pytest.raises(ValueError, match=r"take 1\.12 kB each .*: 7 fit"):
        generate_batch(model, members, [PROMPT, PROMPT[:1]], available=8 * 2 * (cache + words) - 1, **options)


def test_side_by_side_is_taken_where_half_of_what_is_free_holds_it() -> None:
    model = tiny("llama")
    members = pluria.low_precision(model, format="nf4", members=8)  # whose members are no rows of a batch
    how: dict[str, Any] = {"tokenizer": None, "max_new_tokens": 2, "pool": "probability", "device": None, "dtype": None}
    beside, loop = (
        checked(model, members, [PROMPT], backend=kind, available=10**9, **how)
        for kind in ("side_by_side", "loop")  # type: ignore[arg-type]
    )
    assert beside.each > loop.each
    need = 2 * 8 * beside.each
    found = [checked(model, members, [PROMPT], backend="auto", available=free, **how) for free in (need, need - 1)]
    assert [(one.backend, one.each) for one in found] == [("side_by_side", beside.each), ("loop", loop.each)]


@pytest.mark.parametrize(
    ("prompt", "options", "said"),
    [
        ("", {"tokenizer": tokenizer}, "the text is empty"),
        ([], {}, r"a prompt has one token or more, \[P\]; got \[0\]"),
        ("the cat", {}, "a text needs the tokenizer that reads it"),
        ([3, 11], {}, r"tokens are whole numbers 0\.\.10; got \[3, 11\]"),
        ([0.5], {}, "tokens are whole numbers"),
        ([1] * 16, {"max_new_tokens": 1}, "reads 16 tokens at once, and a prompt of 16 leaves none"),
        ([1] * 10, {"max_new_tokens": 7}, "a prompt of 10 leaves room for 6 new ones: ask for no more; got 7"),
        ([1], {"max_new_tokens": 0}, "max_new_tokens is a whole number from 1"),
        ([1], {"pool": "vote"}, "pool is 'probability' or 'logit'"),
        ([1], {"backend": "vmap"}, "backend is 'auto' or 'loop' or 'side_by_side'"),
    ],
)
def test_what_does_not_serve(prompt: Any, options: dict[str, Any], said: str) -> None:
    model = tiny("llama")
    options = {name: value() if callable(value) else value for name, value in options.items()}
    with pytest.raises(ValueError, match=said):
        generate(model, pluria.low_precision(model, members=2), prompt, **options)


def test_networks_that_do_not_serve() -> None:
    for kind, said in (
        ("bert", "does not write text"),
        ("vit", "does not write text"),
    ):
        model = tiny(kind)
        with pytest.raises(ValueError, match=said):
            generate(model, pluria.single(params_of(model)), [1])
    plain = nn.Linear(2, 2)
    with pytest.raises(ValueError, match="Linear does not write text"):
        generate(plain, pluria.single(params_of(plain)), [1])
    model = tiny("llama")
    with pytest.raises(CheckpointError, match="tokenizer and network disagree"):
        generate(model, pluria.single(params_of(model)), "the cat", tokenizer=tokenizer(3))
    with pytest.raises(CheckpointError):
        generate(tiny("gpt2"), pluria.single(params_of(model)), [1], max_new_tokens=2)


def test_a_network_without_such_a_cache() -> None:
    import transformers as t

    mamba = t.MambaForCausalLM(t.MambaConfig(vocab_size=11, hidden_size=8, state_size=4, num_hidden_layers=1)).eval()
    with pytest.raises(ValueError, match="MambaForCausalLM has no cache of keys and values"):
        generate(mamba, pluria.single(params_of(mamba)), [1])
