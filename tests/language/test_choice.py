"""Multiple choice against one continuation at a time, counted by hand."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

import pluria
from language.words import tokenizer
from pluria.core.errors import CheckpointError
from pluria.core.params import params_of
from pluria.language import Choices, Question, choices
from store.tiny import tiny

pytest.importorskip("transformers", reason="transformers is not installed")

QUESTIONS = [
    Question("the cat sat on", (" the mat .", " a dog", " the"), 0),
    Question("a dog ran on the ", ("mat", "cat sat"), 1),
]


def likelihood(model: Any, members: pluria.Ensemble, context: str, choice: str) -> float:
    """log of the product over tokens of the members' mean probability, one token and member at a time."""
    words = tokenizer()
    before, whole = words(context).input_ids, words(context + choice).input_ids
    total = 0.0
    for place in range(len(before), len(whole)):
        mean = 0.0
        for member in members.members:
            model.load_state_dict(members.params(member))
            with torch.no_grad():
                said = model(input_ids=torch.tensor([whole[:place]])).logits[0, -1].double().softmax(-1)
            mean += float(said[whole[place]]) / len(members)
        total += math.log(mean)
    return total


@pytest.mark.parametrize("batch", [1, 3, 8])
def test_likelihoods_are_those_of_one_continuation_at_a_time(batch: int) -> None:
    model = tiny("llama")
    members = pluria.low_precision(model, format="int3", members=3)
    found = choices(model, members, QUESTIONS, tokenizer=tokenizer(), batch=batch, block=4)
    for question, scores in zip(QUESTIONS, found.scores, strict=True):
        wanted = [likelihood(tiny("llama"), members, question.context, choice) for choice in question.choices]
        assert scores.tolist() == pytest.approx(wanted, abs=1e-5)
    assert [lengths.tolist() for lengths in found.lengths] == [[9, 5, 3], [3, 7]]


def test_lengths_are_characters_without_the_space_in_front() -> None:
    model = tiny("llama")
    asked = Question("the cat", (" été", " chats noirs", "  a"), 0)  # in bytes 5, 11 and 1
    found = choices(model, pluria.single(params_of(model)), [asked], tokenizer=tokenizer())
    assert found.lengths[0].tolist() == [3, 11, 2]


def test_figures_by_hand() -> None:
    scores = (torch.tensor([-4.0, -3.0]).double(), torch.tensor([-1.0, -2.0]).double())
    lengths = (torch.tensor([8.0, 3.0]).double(), torch.tensor([2.0, 2.0]).double())
    found = Choices(scores, lengths, torch.tensor([0, 0]))
    assert found.accuracy == 0.5
    assert found.normed_accuracy == 1.0
    share = 1 / (1 + math.exp(-1))
    assert found.ece() == pytest.approx(abs(share - 0.5))
    assert found.nll() == pytest.approx(-(math.log(1 - share) + math.log(share)) / 2)
    assert [one.tolist() for one in found.normed] == [[-0.5, -1.0], [-0.5, -1.0]]
    normed = 1 / (1 + math.exp(-0.5))
    assert found.nll(normed=True) == pytest.approx(-math.log(normed))
    assert found.ece(normed=True) == pytest.approx(1 - normed)


@pytest.mark.parametrize("pool", ["probability", "logit"])
def test_equal_members_choose_as_the_model(pool: Any) -> None:
    model = tiny("gpt2")
    one = choices(model, pluria.single(params_of(model)), QUESTIONS, tokenizer=tokenizer(), pool=pool)
    four = choices(model, pluria.stack([params_of(model)] * 4), QUESTIONS, tokenizer=tokenizer(), pool=pool)
    for mine, theirs in zip(one.scores, four.scores, strict=True):
        torch.testing.assert_close(mine, theirs, atol=1e-5, rtol=0)


def test_a_long_context_loses_its_beginning() -> None:
    model = tiny("llama", context=6)
    one = pluria.single(params_of(model))
    long = Question("dog dog dog the cat sat on a", (" mat", " dog"), 0)
    short = Question("the cat sat on a", (" mat", " dog"), 0)
    cut = choices(model, one, [long], tokenizer=tokenizer()).scores[0]
    # Six tokens are read: the last of the three dogs is among them.
    wanted = choices(model, one, [Question("dog " + short.context, short.choices, 0)], tokenizer=tokenizer()).scores[0]
    torch.testing.assert_close(cut, wanted)


@pytest.mark.parametrize(
    ("question", "said"),
    [
        (Question(" ", ("a", "b"), 0), "has an empty context"),
        (Question("the", (" a",), 0), "two continuations or more"),
        (Question("the", (" a", " "), 0), "none of them empty"),
        (Question("the", (" a", " b"), 2), "one of 2 choices; got 2"),
        (Question("the", (" a", " a" * 17), 0), "has 17 tokens, and the network reads 16 at once"),
    ],
)
def test_questions_that_do_not_serve(question: Question, said: str) -> None:
    model = tiny("llama")
    with pytest.raises(ValueError, match=said):
        choices(model, pluria.single(params_of(model)), [question], tokenizer=tokenizer())


def test_what_else_is_refused() -> None:
    model = tiny("llama")
    one = pluria.single(params_of(model))
    with pytest.raises(ValueError, match="a question or more"):
        choices(model, one, [], tokenizer=tokenizer())
    with pytest.raises(CheckpointError, match="tokenizer and network disagree"):
        choices(model, one, QUESTIONS, tokenizer=tokenizer(extra=4))
    joined = Question("the", ("x", "y"), 0)  # one word with the context: the tokenizer leaves nothing over
    with pytest.raises(ValueError, match="makes no tokens of the continuation 'x'"):
        choices(model, one, [joined], tokenizer=tokenizer())
