"""The temperature fitted in one pass against the exact fit of kept predictions."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

import pluria
from pluria.language import averages, fit_token_temperature, perplexity, windows
from pluria.pool import fit_temperature
from pluria.score import ece, nll
from store.tiny import tiny

pytest.importorskip("transformers", reason="transformers is not installed")


def told(model: Any, *, sharper: float) -> torch.Tensor:
    """A text sampled from the network with its logits times `sharper`, whose best temperature is near 1 / sharper."""
    tokens, generator = torch.tensor([[1]]), torch.Generator().manual_seed(0)
    with torch.no_grad():
        for _ in range(60):
            words = (model(input_ids=tokens).logits[0, -1] * sharper).softmax(-1)
            tokens = torch.cat([tokens, torch.multinomial(words, 1, generator=generator)[None]], dim=1)
    return tokens[0]


@pytest.mark.parametrize("pool", ["probability", "logit"])
@pytest.mark.parametrize("sharper", [0.7, 1.8])
def test_the_exact_optimum_is_met(pool: Any, sharper: float) -> None:
    model = tiny("llama", context=64)
    members = pluria.low_precision(model, format="int4", members=3)
    tokens = told(model, sharper=sharper)
    slid = windows(tokens, context=64)
    blocks = [found for _, found in averages(model, members, [(slid.tokens, slid.targets)], rule=pool)]
    pooled, y = torch.cat([b.pooled for b in blocks]), torch.cat([b.targets for b in blocks])
    wanted = fit_temperature(pooled, y)
    found = fit_token_temperature(model, members, tokens, pool=pool)
    assert 0.25 < wanted.value < 4
    assert found == pytest.approx(wanted.value, rel=5e-3)
    assert abs(math.log(found)) > 0.05
    scaled = perplexity(model, members, tokens, pool=pool, temperature=wanted.value)
    assert scaled.nats == pytest.approx(float(nll(wanted(pooled), y).mean()), abs=1e-6)
    assert scaled.ece == pytest.approx(ece(wanted(pooled), y), abs=1e-6)
    assert scaled.nats < perplexity(model, members, tokens, pool=pool).nats


def test_a_text_without_an_optimum_ends_at_the_grid() -> None:
    model = tiny("llama", context=64)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(4.0)  # far too sure of itself
    one = pluria.single(dict(model.state_dict()))
    tokens = torch.randint(0, 11, (40,), generator=torch.Generator().manual_seed(2))
    assert fit_token_temperature(model, one, tokens) == pytest.approx(4.0)


@pytest.mark.parametrize("value", [0.0, -1.0, math.inf, math.nan])
def test_temperatures_that_are_none(value: float) -> None:
    model = tiny("llama")
    with pytest.raises(ValueError, match="a temperature is positive and finite"):
        perplexity(model, pluria.single(dict(model.state_dict())), torch.arange(5), temperature=value)
