"""How a token is chosen, by hand and against transformers' own generate."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from pluria.language.sampling import Sampling

pytest.importorskip("transformers", reason="transformers is not installed")

WORDS = torch.tensor([0.1, 0.4, 0.2, 0.05, 0.25], dtype=torch.float64).log()


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize(
    ("options", "wanted"),
    [
        ({}, [0.1, 0.4, 0.2, 0.05, 0.25]),
        ({"top_k": 2}, [0, 8 / 13, 0, 0, 5 / 13]),
        ({"top_k": 99}, [0.1, 0.4, 0.2, 0.05, 0.25]),
        ({"top_p": 0.6}, [0, 8 / 13, 0, 0, 5 / 13]),
        ({"top_p": 0.7}, [0, 8 / 17, 4 / 17, 0, 5 / 17]),
        ({"top_p": 0.01}, [0, 1, 0, 0, 0]),
        ({"top_p": 1.0}, [0.1, 0.4, 0.2, 0.05, 0.25]),
        ({"temperature": 0.5}, [4 / 110, 64 / 110, 16 / 110, 1 / 110, 25 / 110]),
        ({"top_k": 3, "top_p": 0.7}, [0, 8 / 13, 0, 0, 5 / 13]),
    ],
)
def test_narrowed_by_hand(options: dict[str, Any], wanted: list[float] | None) -> None:
    found = Sampling(**{"temperature": 1.0, **options}).narrowed(WORDS).exp()
    squares = WORDS.exp().square() / WORDS.exp().square().sum()
    torch.testing.assert_close(found, squares if wanted is None else torch.tensor(wanted, dtype=torch.float64))


def test_narrowed_as_transformers_narrows() -> None:
    import transformers as t

    scores = torch.randn(200, generator=seeded(0), dtype=torch.float64).log_softmax(-1)
    chain = [t.TemperatureLogitsWarper(0.7), t.TopKLogitsWarper(40), t.TopPLogitsWarper(0.8)]
    wanted = scores[None]
    for warper in chain:
        wanted = warper(None, wanted)
    found = Sampling(0.7, 40, 0.8).narrowed(scores)
    torch.testing.assert_close(found, wanted[0].log_softmax(-1))
    assert 1 < int(found.isfinite().sum()) < 40


def test_drawn_tokens_have_their_probabilities() -> None:
    how, chooser = Sampling(1.0, top_k=3), seeded(0)
    drawn = torch.tensor([how.choose(WORDS, chooser) for _ in range(2000)])
    shares = torch.bincount(drawn, minlength=5) / 2000
    wanted = torch.tensor([0, 8 / 17, 4 / 17, 0, 5 / 17])
    assert float((shares - wanted).abs().max()) < 4 * (0.25 / 2000) ** 0.5
    assert shares[0] == shares[3] == 0


def test_greedy_takes_the_first_of_the_best() -> None:
    chooser = seeded(0)
    state = chooser.get_state()
    assert Sampling().choose(torch.tensor([0.2, 0.4, 0.4]).log(), chooser) == 1
    assert torch.equal(chooser.get_state(), state)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"temperature": -1.0}, "a temperature is 0, which is greedy, or positive"),
        ({"temperature": float("nan")}, "a temperature is 0"),
        ({"temperature": 1.0, "top_k": 0}, "top_k is a whole number from 1; got 0"),
        ({"temperature": 1.0, "top_k": 1.5}, "top_k is a whole number"),
        ({"temperature": 1.0, "top_p": 0.0}, "top_p is a probability above 0"),
        ({"temperature": 1.0, "top_p": 1.5}, "top_p is a probability above 0"),
        ({"top_k": 5}, "give a temperature above 0"),
        ({"top_p": 0.5}, "give a temperature above 0"),
    ],
)
def test_bad_options(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Sampling(**options)
