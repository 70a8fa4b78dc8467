"""Per-token averages against members that are run one by one and held whole."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import pluria
from grown import growth, needs_proc
from pluria.core.errors import CheckpointError
from pluria.core.params import params_of
from pluria.language import Averaged, averages
from pluria.pool import mean_logit, mean_probability
from pluria.predict import gather, predict
from store.tiny import tiny

pytest.importorskip("transformers", reason="transformers is not installed")

PADDED = {
    "input_ids": torch.tensor([[1, 2, 3, 4, 5], [6, 7, 8, 0, 0]]),
    "attention_mask": torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]]),
}
TARGETS = torch.tensor([[2, 3, 4, 5, -100], [7, 8, -100, -100, -100]])
POOLS = {"probability": mean_probability, "logit": mean_logit}


class Plain(nn.Module):
    """A network that transformers knows nothing of."""

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.embedding, self.out = nn.Embedding(11, 6), nn.Linear(6, 11)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        logits: Tensor = self.out(self.embedding(input_ids))
        return logits


def model_of(kind: str) -> nn.Module:
    return Plain() if kind == "plain" else tiny(kind)


def together(found: list[tuple[int, Averaged]], name: str) -> Tensor:
    return torch.cat([getattr(one, name) for _, one in found], dim=-2 if name == "pooled" else -1)


@pytest.mark.parametrize("rule", ["probability", "logit"])
@pytest.mark.parametrize("kind", ["llama", "gpt2", "plain"])
def test_streamed_as_held(kind: str, rule: Any) -> None:
    model = model_of(kind)
    members = pluria.low_precision(model, format="int3", members=4).reweight(torch.tensor([1.0, 3.0, 0.0, 2.0]))
    outputs, _ = gather(predict(model, members, [PADDED]))
    kept = TARGETS.reshape(-1) != -100
    flat = outputs.reshape(4, -1, 11)[:, kept].double()
    wanted = POOLS[rule](flat, members.weights)
    found = list(averages(model, members, [(PADDED, TARGETS)], rule=rule, block=4))
    assert [len(one.targets) for _, one in found] == [4, 2]
    torch.testing.assert_close(together(found, "pooled").double(), wanted, atol=2e-6, rtol=1e-5)
    assert together(found, "targets").tolist() == [2, 3, 4, 5, 7, 8]
    assert together(found, "places").tolist() == [0, 1, 2, 3, 5, 6]
    words = flat.log_softmax(-1)
    chosen = words.gather(-1, together(found, "targets").expand(4, -1)[..., None])[..., 0]
    torch.testing.assert_close(together(found, "log_probs"), chosen, atol=2e-6, rtol=1e-5)
    entropies = -(words.exp() * words).sum(-1)
    torch.testing.assert_close(together(found, "entropies"), entropies, atol=2e-6, rtol=1e-5)
    assert torch.equal(together(found, "tops"), words.argmax(-1))


@pytest.mark.parametrize("block", [1, 3, 100])
def test_the_block_changes_nothing(block: int) -> None:
    model = tiny("gpt2")  # its head is tied to the embedding, so each block writes it anew
    members = pluria.low_precision(model, format="int3", members=3)
    one = list(averages(model, members, [(PADDED, TARGETS)] * 2, block=6))
    other = list(averages(model, members, [(PADDED, TARGETS)] * 2, block=block))
    assert {number for number, _ in other} == {0, 1}
    torch.testing.assert_close(together(other, "pooled"), together(one, "pooled"))


@pytest.mark.parametrize("rule", ["probability", "logit"])
def test_sizes_are_the_first_members(rule: Any) -> None:
    model = tiny("llama")
    members = pluria.low_precision(model, format="int3", members=4).reweight(torch.tensor([1.0, 3.0, 2.0, 2.0]))
    found = dict(
        (one.members, one) for _, one in averages(model, members, [(PADDED, TARGETS)], rule=rule, sizes=(1, 3))
    )
    assert list(found) == [1, 3]
    for size in (1, 3):
        (_, alone), *_ = averages(model, members.first(size), [(PADDED, TARGETS)], rule=rule)
        torch.testing.assert_close(found[size].pooled, alone.pooled)
        torch.testing.assert_close(found[size].weights, alone.weights)
        assert torch.equal(found[size].log_probs, alone.log_probs)


def test_the_model_is_not_touched() -> None:
    model = tiny("gpt2")
    before = {name: value.clone() for name, value in model.state_dict().items()}
    list(averages(model, pluria.low_precision(model, members=2), [(PADDED, TARGETS)]))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert "forward" not in vars(model.transformer)


def test_a_batch_without_targets_says_nothing() -> None:
    model = tiny("llama")
    assert list(averages(model, pluria.single(params_of(model)), [(PADDED, torch.full((2, 5), -100))])) == []


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"rule": "vote"}, "'probability' or 'logit'"),
        ({"block": 0}, "a token or more"),
        ({"sizes": (0,)}, "sizes are in 1..2"),
        ({"sizes": (3,)}, "sizes are in 1..2"),
        ({"sizes": ()}, "sizes are in 1..2"),
    ],
)
def test_bad_options_are_refused_at_once(options: dict[str, Any], said: str) -> None:
    model = tiny("llama")
    with pytest.raises(ValueError, match=said):
        averages(model, pluria.low_precision(model, members=2), [(PADDED, TARGETS)], **options)


def test_what_does_not_fit_is_refused() -> None:
    model = tiny("llama")
    members = pluria.low_precision(model, members=2)
    with pytest.raises(ValueError, match=r"have the shapes \[2, 4\] and \[2, 5\]"):
        list(averages(model, members, [(PADDED, TARGETS[:, 1:])]))
    with pytest.raises(ValueError, match=r"targets are tokens 0\.\.10 or -100"):
        list(averages(model, members, [(PADDED, TARGETS + 6)]))
    weighted = members.reweight(torch.tensor([0.0, 1.0]))
    with pytest.raises(ValueError, match="the first members have weight zero"):
        list(averages(model, weighted, [(PADDED, TARGETS)], sizes=(1, 2)))
    with pytest.raises(CheckpointError):
        averages(tiny("gpt2"), members, [(PADDED, TARGETS)])


@needs_proc
def test_words_of_a_block_stand_in_memory_and_no_more() -> None:
    block = 64 * 8192 * 4
    streamed, held = growth("language", "streamed", "held")
    assert streamed < 8 * block  # 17 MB; all words of all members are 134 MB
    assert held > 100e6, "the measurement sees words that are held"
