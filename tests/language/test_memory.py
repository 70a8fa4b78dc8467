"""More members than memory holds are refused wherever something of each member is held, and how many fit is said."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest
import torch

import pluria
from language.words import TEXT, tokenizer
from pluria.language import Question, average, choices, perplexity, pooled_tokens, several, windows
from pluria.language.memory import cache_numbers, free_bytes, refuse_members
from store.tiny import tiny

pytest.importorskip("transformers", reason="transformers is not installed")

STATES = 15 * 8 * 4
"""Bytes of one member's states: fifteen tokens that are predicted, eight numbers of float32."""


def judge(model: Any, members: pluria.Ensemble) -> Any:
    return perplexity(model, members, TEXT, tokenizer=tokenizer(), context=16)


def choose(model: Any, members: pluria.Ensemble) -> Any:
    # Two continuations of seven and eight tokens.
    asked = Question("the", (" cat sat on the mat . a", " cat sat on the mat . a dog"), 0)
    return choices(model, members, [asked], tokenizer=tokenizer())


def pooled(model: Any, members: pluria.Ensemble) -> Any:
    slid = windows(torch.arange(16) % 11, context=16)
    return list(pooled_tokens([(model, members)], [(slid.tokens, slid.targets)], block=15))


@pytest.mark.parametrize(
    ("run", "place", "each", "instead"),
    [
        (judge, average, STATES, "a smaller batch, or a shorter context"),
        (choose, average, STATES, "a smaller batch, or a shorter context"),
        (pooled, several, 2 * 15 * 11 * 4, "a smaller block of tokens"),
    ],
)
def test_where_members_leave_something_behind(
    run: Callable[..., Any], place: ModuleType, each: int, instead: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tiny("llama")
    members = pluria.low_precision(model, members=8)
    monkeypatch.setattr(place, "free_bytes", lambda device: 8 * each)
    run(model, members)
    monkeypatch.setattr(place, "free_bytes", lambda device: 8 * each - 1)
    with pytest.raises(ValueError, match=rf"8 members take .* each and .* are free: 7 fit\. Take .*{instead}"):
        run(model, members)


def test_caches_by_hand() -> None:
    llama = {"num_hidden_layers": 3, "num_attention_heads": 4, "num_key_value_heads": 2, "hidden_size": 20}
    assert cache_numbers(llama, 7) == 2 * 3 * 2 * 5 * 7
    assert cache_numbers({**llama, "head_dim": 8}, 7) == 2 * 3 * 2 * 8 * 7
    t5 = {"is_encoder_decoder": True, "num_layers": 9, "num_decoder_layers": 3, "num_heads": 2, "d_model": 8, "d_kv": 5}
    assert cache_numbers(t5, 7, read=11) == 2 * 3 * 2 * 5 * (7 + 11) + 11 * 8
    assert cache_numbers(t5, 7) == cache_numbers(t5, 7, read=7)
    bart = {"is_encoder_decoder": True, "decoder_layers": 3, "decoder_attention_heads": 2, "d_model": 8}
    assert cache_numbers(bart, 7, read=1) == 2 * 3 * 2 * 4 * 8 + 8
    assert cache_numbers({}, 7) == 0


def test_devices_that_do_not_say_refuse_nothing() -> None:
    assert free_bytes(torch.device("meta")) is None
    refuse_members(10**9, 10**9, None, instead="")


@pytest.mark.parametrize("kind", ["llama", "gpt2", "t5"])
def test_caches_are_what_a_network_keeps(kind: str) -> None:
    from pluria.language.steps import Steps, member_bytes

    model = tiny(kind)
    members = pluria.low_precision(model, members=2)
    steps = Steps(model, members, "loop")
    for part in (torch.tensor([[1, 2, 3], [4, 5, 6]]), torch.tensor([[7], [8]])):
        steps(part)
    held = steps.members[1]
    caches = [held.cache.self_attention_cache, held.cache.cross_attention_cache] if kind == "t5" else [held.cache]
    kept = [t for cache in caches for layer in cache.layers for t in (layer.keys, layer.values)]
    kept += [out[0] for out in held.read.values()]
    new = 2 if kind == "t5" else 1  # its decoder's first token, and one more
    counted = member_bytes(model, members, read=3, new=new, batch=2, backend="loop", width=4)
    assert counted - 11 * 16 * 2 == sum(value.nbytes for value in kept)
