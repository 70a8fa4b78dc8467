"""Members asked on what is left of the batches: the same answers as of all outputs, and no forward too many."""

from __future__ import annotations

from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn

import pluria
from pluria.pool import Cascade
from pluria.predict import Part, ask, gather, identity, predict
from pluria.zoo import network
from predict.networks import draw

Net = nn.Module


class Counting(nn.Module):
    """A network that notes how many examples each call brings."""

    def __init__(self, net: Net) -> None:
        super().__init__()
        self.net, self.calls = net, []  # type: ignore[var-annotated]

    def __deepcopy__(self, memo: dict[int, Any]) -> Counting:
        made = Counting(network("mlp", inputs=6, classes=4, hidden=[8], seed=3))
        made.load_state_dict(self.state_dict())
        made.calls = self.calls
        return made

    def forward(self, x: Tensor) -> Tensor:
        self.calls.append(len(x))
        made: Tensor = self.net(x)
        return made


def flipped(x: Tensor) -> Tensor:
    return x.flip(-1)


def parts() -> list[Part]:
    """Three INT-3 members behind two views, then a larger network."""
    small = Counting(network("mlp", inputs=6, classes=4, hidden=[8], seed=1))
    large = network("mlp", inputs=6, classes=4, hidden=[16, 16], seed=2)
    drawn = pluria.low_precision(small, format="int3", members=3)
    return [Part(small, drawn, (identity, flipped)), Part(large, pluria.single(pluria.params_of(large)))]


def rows(size: int = 10, count: int = 57) -> list[tuple[Tensor, Tensor]]:
    x = 2 * draw(count, 6)
    return list(zip(x.split(size), (torch.arange(count) % 4).split(size), strict=True))


def everything(every: list[Part]) -> Tensor:
    return torch.cat([gather(predict(one.model, one.ensemble, rows(), views=one.views))[0] for one in every])


RULES = {
    "in order": Cascade(((0,), (1,), (2,), (3,)), ((0.6, None), (0.62, 0.7), (0.64, None)), 4, (1, 1, 1, 3)),
    "another order": Cascade(((3,), (1, 0), (2,)), ((0.6, None), (0.65, None)), 4, (1, 1, 1, 3), score="entropy"),
    "all": Cascade(((0, 1), (2, 3)), ((None, None),), 4, (1, 1, 1, 3)),
    "none": Cascade(((2,), (0, 1, 3)), (None,), 4, (1, 1, 1, 3)),
    "settled": Cascade(
        ((0,), (1,), (2,), (3,)), ((-1e-9, None),) * 3, 4, (1, 1, 1, 3), pool="mean_probability", score="settled"
    ),
}


@pytest.mark.parametrize("name", RULES)
def test_the_answers_are_those_of_the_rule_on_all_outputs(name: str) -> None:
    every, rule = parts(), RULES[name]
    whole, found = everything(every), ask(every, rule, rows())
    assert torch.equal(found.asked, rule.asked(whole))
    torch.testing.assert_close(found.outputs[found.asked], whole[found.asked])
    assert bool(found.outputs[~found.asked].isnan().all())
    torch.testing.assert_close(rule(found.outputs), rule(whole))
    assert torch.equal(rule.asked(found.outputs), found.asked)
    assert found.targets is not None
    assert found.targets.tolist() == [i % 4 for i in range(57)]


def test_no_forward_too_many_and_full_batches() -> None:
    every, rule = parts(), RULES["in order"]
    told: list[tuple[int, int]] = []
    found = ask(every, rule, rows(), told=lambda stage, count: told.append((stage, count)))
    counts = found.asked.sum(1).tolist()
    assert told == list(enumerate(counts))
    assert 57 == counts[0] > counts[1] > counts[2] > 0
    calls = every[0].model.calls
    assert sum(calls) == sum(counts[:3])
    assert len(calls) == sum(-(-count // 10) for count in counts[:3])  # packed: no more batches than it takes


def test_weights_and_parts_of_arguments() -> None:
    every, rule = parts(), RULES["in order"]
    weights = torch.tensor([1.0, 5.0, 1.0, 1.0])
    whole = everything(every)
    assert torch.equal(ask(every, rule, rows(), weights=weights).asked, rule.asked(whole, weights))
    assert not torch.equal(rule.asked(whole, weights), rule.asked(whole))

    class Sum(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = network("mlp", inputs=6, classes=4, hidden=[8])

        def forward(self, x: Tensor, more: Tensor) -> Tensor:
            made: Tensor = self.net(x + more)
            return made

    net = Sum()
    two = Cascade(((0,), (1,)), ((0.6, None),), 4, (1, 1))
    drawn = [Part(net, pluria.low_precision(net, format="int3", members=2))]
    named = [{"x": x, "more": x.flip(0), "labels": y} for x, y in rows()]
    full = gather(predict(net, drawn[0].ensemble, named))[0]
    assert torch.equal(ask(drawn, two, named).asked, two.asked(full))
    paired = [((batch["x"], batch["more"]), batch["labels"]) for batch in named]
    assert torch.equal(ask(drawn, two, paired).asked, two.asked(full))
    assert 0 < int(two.asked(full)[1].sum()) < 57


def test_what_does_not_fit_is_refused() -> None:
    every = parts()
    with pytest.raises(ValueError, match="for 4 members, and here are 3"):
        ask(every[:1], RULES["all"], rows())
    with pytest.raises(ValueError, match=r"for outputs \[N, 5\]"):
        ask(every, Cascade(((0, 1), (2, 3)), (None,), 5, (1,) * 4), rows())
    with pytest.raises(TypeError, match="no iterator"):
        ask(every, RULES["all"], iter(rows()))
    with pytest.raises(ValueError, match="there was no batch"):
        ask(every, RULES["all"], [])
    x = torch.ones(0, 6)
    with pytest.raises(ValueError, match="or none with an example"):
        ask(every, RULES["all"], [x, x])
    with pytest.raises(ValueError, match="tensors that share their first axis"):
        ask(every, RULES["all"], [(x, torch.ones(3))], inputs=lambda batch: (batch, None))


class Two(NamedTuple):
    x: Tensor
    more: Tensor


class Scaled(nn.Module):
    """A network with arguments that are no tensors."""

    def __init__(self) -> None:
        super().__init__()
        self.net = network("mlp", inputs=6, classes=4, hidden=[8])

    def forward(self, x: Tensor, more: Tensor, factor: float = 1.0, mask: Tensor | None = None) -> Tensor:
        assert mask is None
        made: Tensor = self.net(factor * x + more)
        return made


def test_whatever_predict_takes_is_taken_apart_and_joined() -> None:
    net, rule = Scaled(), Cascade(((0,), (1,)), ((0.6, None),), 4, (1, 1))
    drawn = [Part(net, pluria.low_precision(net, format="int3", members=2))]
    named = [{"x": x, "more": x.flip(0), "factor": 1.0 + i // 3, "mask": None} for i, (x, _) in enumerate(rows())]
    tupled = [(Two(x, x.flip(0)), y) for x, y in rows()]
    for batches in (named, tupled):
        full = gather(predict(net, drawn[0].ensemble, batches))[0]
        assert torch.equal(ask(drawn, rule, batches).asked, rule.asked(full))
        assert 0 < int(rule.asked(full)[1].sum()) < 57
