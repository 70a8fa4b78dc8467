"""Several networks of one vocabulary against networks that are run one by one and held whole."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import pluria
from language.test_average import PADDED, TARGETS, Plain
from pluria.core.errors import CheckpointError
from pluria.core.params import params_of
from pluria.language import averages, consistency, pooled_tokens
from pluria.pool import mean_logit, mean_probability
from pluria.predict import gather, predict
from store.tiny import tiny

pytest.importorskip("transformers", reason="transformers is not installed")

KEPT = TARGETS.reshape(-1) != -100


def sources() -> list[Any]:
    llama, plain = tiny("llama"), Plain()
    return [(llama, pluria.low_precision(llama, format="int3", members=2)), (plain, pluria.single(params_of(plain)))]


def held(pairs: list[Any]) -> Tensor:
    """`[K, T, V]` of all members, whole."""
    outputs = torch.cat([gather(predict(model, ensemble, [PADDED]))[0] for model, ensemble in pairs])
    return outputs.reshape(len(outputs), -1, 11)[:, KEPT].log_softmax(-1)


@pytest.mark.parametrize("pool", [mean_probability, mean_logit, consistency])
@pytest.mark.parametrize("weights", [None, torch.tensor([2.0, 1.0, 5.0]), torch.rand(3, 12) + 0.1])
def test_streamed_as_held(pool: Any, weights: Tensor | None) -> None:
    pairs = sources()
    found = list(pooled_tokens(pairs, [(PADDED, TARGETS)] * 2, pool=pool, weights=weights, block=4))
    assert [(number, len(one.targets)) for number, one in found] == [(0, 4), (0, 2), (1, 4), (1, 2)]
    whole = torch.cat([held(pairs)] * 2, dim=1)
    given = torch.tensor([0.5, 0.5, 1.0]) if weights is None else weights
    wanted = pool(whole, given)
    torch.testing.assert_close(torch.cat([one.pooled for _, one in found]), wanted, atol=2e-6, rtol=1e-5)
    targets = TARGETS.reshape(-1)[KEPT].repeat(2)
    chosen = wanted.gather(-1, targets[:, None])[:, 0].double()
    torch.testing.assert_close(torch.cat([one.log_probs for _, one in found]), chosen, atol=2e-6, rtol=1e-5)
    own = whole.gather(-1, targets.expand(3, -1)[..., None])[..., 0].double()
    found_own = torch.cat([one.member_log_probs for _, one in found], dim=1)
    torch.testing.assert_close(found_own, own, atol=2e-6, rtol=1e-5)


def test_one_network_is_its_average() -> None:
    pair = sources()[0]
    (_, one), *_ = pooled_tokens([pair], [(PADDED, TARGETS)])
    (_, other), *_ = averages(*pair, [(PADDED, TARGETS)])
    torch.testing.assert_close(one.pooled, other.pooled, atol=1e-6, rtol=1e-6)


def test_weights_of_each_token_are_its_own() -> None:
    pairs = sources()
    weights = torch.zeros(3, 6)
    weights[[0, 1, 2, 2, 1, 0], torch.arange(6)] = 1
    (_, one), *_ = pooled_tokens(pairs, [(PADDED, TARGETS)], weights=weights)
    picked = one.member_log_probs[[0, 1, 2, 2, 1, 0], torch.arange(6)]
    torch.testing.assert_close(one.log_probs, picked, atol=2e-6, rtol=1e-5)


def test_refused() -> None:
    pairs, batches = sources(), [(PADDED, TARGETS)]
    cases: list[tuple[dict[str, Any], str]] = [
        ({"block": 0}, "a token or more"),
        ({"weights": torch.ones(2)}, r"\[3\] or \[3, 6\]; got \[2\]"),
        ({"weights": torch.ones(3, 5)}, r"got \[3, 5\]"),
        ({"weights": torch.zeros(3)}, "positive sum"),
        ({"weights": torch.tensor([1.0, -1.0, 1.0])}, "not negative"),
    ]
    for options, said in cases:
        with pytest.raises(ValueError, match=said):
            pooled_tokens(pairs, batches, **options)
    with pytest.raises(ValueError, match="one network or more"):
        pooled_tokens([], batches)
    with pytest.raises(CheckpointError):
        pooled_tokens([(tiny("gpt2"), pairs[0][1])], batches)
    wide = tiny("llama", words=13)
    with pytest.raises(ValueError, match=r"have \[11, 13\] words"):
        list(pooled_tokens([pairs[0], (wide, pluria.single(params_of(wide)))], batches))
    with pytest.raises(ValueError, match=r"targets are tokens 0\.\.10"):
        list(pooled_tokens(pairs, [(PADDED, TARGETS + 6)]))
