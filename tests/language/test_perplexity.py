"""Perplexity against transformers' own loss and against a plain loop."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

import pluria
from language.words import TEXT, tokenizer
from pluria.core.params import params_of
from pluria.language import perplexity, token_scores, tokens_of, windows
from pluria.predict import gather, predict
from pluria.score import ece, member_sums, mutual_information
from store.tiny import tiny

pytest.importorskip("transformers", reason="transformers is not installed")

TOKENS = torch.randint(0, 11, (23,), generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_one_sequence_has_the_loss_of_transformers(kind: str) -> None:
    model = tiny(kind, context=32)
    found = perplexity(model, pluria.single(params_of(model)), TOKENS)
    with torch.no_grad():
        loss = float(model(input_ids=TOKENS[None], labels=TOKENS[None]).loss)
    assert found.nats == pytest.approx(loss, abs=1e-6)
    assert found.perplexity == pytest.approx(math.exp(loss), rel=1e-5)
    assert (found.tokens, found.members) == (22, 1)
    assert found.mutual_information < 1e-6
    assert found.agreement == 1.0


@pytest.mark.parametrize("pool", ["probability", "logit"])
def test_equal_members_are_the_model(pool: Any) -> None:
    model = tiny("llama", context=32)
    one = perplexity(model, pluria.single(params_of(model)), TOKENS, pool=pool)
    five = perplexity(model, pluria.stack([params_of(model)] * 5), TOKENS, pool=pool)
    for name in ("nats", "member_nats", "ece", "accuracy", "confidence", "mutual_information", "agreement"):
        assert getattr(five, name) == pytest.approx(getattr(one, name), abs=1e-6)


def plain(outputs: Tensor, tokens: Tensor, context: int, stride: int) -> tuple[Tensor, Tensor]:
    """Pooled log-probabilities and targets, one token after the other; outputs(tokens [L]) -> [K, L, V]."""
    rows, done, start = [], 1, 0
    while done < len(tokens):
        start = min(start, len(tokens) - context)
        found = outputs(tokens[start : start + context]).double().log_softmax(-1)
        rows += [found[:, place - start - 1] for place in range(done, start + context)]
        done, start = start + context, start + stride
    return torch.stack(rows, dim=1), tokens[1:]


@pytest.mark.parametrize("batch", [1, 3])
def test_a_sliding_window_is_the_plain_loop(batch: int) -> None:
    model = tiny("gpt2", context=32)
    members = pluria.low_precision(model, format="int3", members=3)
    found = perplexity(model, members, TOKENS, context=8, stride=3, batch=batch, block=5)
    words, targets = plain(
        lambda part: gather(predict(model, members, [{"input_ids": part[None]}]))[0][:, 0], TOKENS, 8, 3
    )
    pooled = words.logsumexp(0) - math.log(3)
    chosen = words.gather(-1, targets.expand(3, -1)[..., None])[..., 0]
    assert found.nats == pytest.approx(-float((chosen.logsumexp(0) - math.log(3)).mean()), abs=1e-6)
    assert found.member_nats == pytest.approx(-float(chosen.mean()), abs=1e-6)
    assert found.ece == pytest.approx(ece(pooled, targets), abs=1e-6)
    assert found.accuracy == pytest.approx(float((pooled.argmax(-1) == targets).double().mean()))
    assert found.confidence == pytest.approx(float(pooled.amax(-1).exp().mean()), abs=1e-6)
    assert found.mutual_information == pytest.approx(float(mutual_information(member_sums(words)).mean()), abs=1e-6)
    same = (words.argmax(-1) == pooled.argmax(-1)).double().mean()
    assert found.agreement == pytest.approx(float(same))


def test_pooled_by_logits_the_members_mean_is_the_ambiguity_above() -> None:
    model = tiny("llama", context=32)
    found = perplexity(model, pluria.low_precision(model, format="int3", members=4), TOKENS, pool="logit")
    assert found.member_nats - found.nats == pytest.approx(found.mutual_information, abs=1e-7)
    assert found.mutual_information > 1e-4


def test_scores_of_each_token_and_window() -> None:
    model = tiny("llama", context=32)
    members = pluria.low_precision(model, format="int3", members=4)
    slid = windows(TOKENS, context=8, stride=4)
    found = token_scores(model, members, slid, sizes=(2, 4), batch=2, block=3)
    assert list(found) == [2, 4]
    assert found[4].windows.tolist() == [0] * 7 + [1] * 4 + [2] * 4 + [3] * 4 + [4] * 3
    alone = token_scores(model, members.first(2), slid)[2]
    torch.testing.assert_close(found[2].log_probs, alone.log_probs)
    assert found[4].member_log_probs.shape == (4, 22)
    assert bool((found[4].entropy >= found[4].mutual_information).all())


def test_a_text_with_its_tokenizer() -> None:
    model, words = tiny("llama", context=32), tokenizer()
    one = pluria.single(params_of(model))
    assert perplexity(model, one, TEXT, tokenizer=words) == perplexity(model, one, tokens_of(words, TEXT))


def test_a_text_longer_than_the_context_is_read_in_windows() -> None:
    model = tiny("gpt2", context=8)
    assert perplexity(model, pluria.single(params_of(model)), TOKENS).tokens == 22


def test_what_does_not_serve() -> None:
    model = tiny("llama")
    one = pluria.single(params_of(model))
    with pytest.raises(ValueError, match="a text needs the tokenizer that reads it"):
        perplexity(model, one, TEXT)
    with pytest.raises(ValueError, match="the text is empty"):
        perplexity(model, one, " ", tokenizer=tokenizer())
    with pytest.raises(ValueError, match="reads 16 tokens at once, so a context of 17 is too long"):
        perplexity(model, one, TOKENS, context=17)
    with pytest.raises(ValueError, match="a batch has one window or more"):
        perplexity(model, one, TOKENS, batch=0)
    for kind in ("bert", "t5"):
        other = tiny(kind)
        with pytest.raises(ValueError, match="give a causal language model"):
            perplexity(other, pluria.single(params_of(other)), TOKENS)


def test_a_text_of_impossible_words_is_infinite() -> None:
    model = tiny("llama")
    found = perplexity(model, pluria.single(params_of(model)), TOKENS[:3])
    assert math.isinf(type(found)(**{**vars(found), "nats": 800.0}).perplexity)
