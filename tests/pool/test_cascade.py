"""Cascades: a case by hand, the two ends, who is asked, what a fit finds where the answer is known, what is refused."""

import math

import pytest
import torch
from torch import Tensor

from pluria.pool import Cascade, Chain, Temperature, fit_cascade, mean_logit, mean_probability
from pluria.pool.cascade import Window

ALL: Window = (None, None)


def members(k: int = 4, n: int = 300, c: int = 5, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Logits [K, N, C] that know the targets [N], each member better than the one before."""
    generator = torch.Generator().manual_seed(seed)
    y = torch.randint(c, (n,), generator=generator)
    known = torch.nn.functional.one_hot(y, c) * torch.linspace(2, 4, k)[:, None, None]
    return 1.5 * torch.randn(k, n, c, generator=generator) + known, y


def of(k: int, c: int, windows: tuple[Window | None, ...], **options: object) -> Cascade:
    return Cascade(tuple((i,) for i in range(k)), windows, c, (1.0,) * k, **options)  # type: ignore[arg-type]


def test_a_case_by_hand() -> None:
    outputs = torch.tensor([
        [[0.9, 0.1], [0.6, 0.4], [0.5, 0.5], [0.3, 0.7]],
        [[0.1, 0.9], [0.8, 0.2], [0.7, 0.3], [0.1, 0.9]],
        [[0.1, 0.9], [0.1, 0.9], [0.3, 0.7], [0.1, 0.9]],
    ]).log()  # fmt: skip
    # 1 - max p: .1 .4 .5 .3 after one; means (.7, .3) (.6, .4) after two of the rows 1, 2
    cascade = of(3, 2, ((0.35, None), (0.25, 0.35)), pool="mean_probability")
    asked = cascade.asked(outputs)
    assert asked.int().tolist() == [[1, 1, 1, 1], [0, 1, 1, 0], [0, 1, 0, 0]]
    pooled = cascade(outputs).exp()[:, 0]
    torch.testing.assert_close(pooled, torch.tensor([0.9, (0.6 + 0.8 + 0.1) / 3, 0.6, 0.3]))
    spent = cascade.spent(asked)
    assert (spent.members, spent.cost, spent.share, spent.reached) == (1.75, 1.75, 1.75 / 3, (1.0, 0.5, 0.25))
    mixed = cascade(outputs, torch.tensor([3.0, 1.0, 1.0])).exp()[:, 0]  # (.65, .35) goes on, (.55, .45) does not
    torch.testing.assert_close(mixed, torch.tensor([0.9, (3 * 0.6 + 0.8 + 0.1) / 5, (3 * 0.5 + 0.7) / 4, 0.3]))


@pytest.mark.parametrize(("name", "pool"), [("mean_logit", mean_logit), ("mean_probability", mean_probability)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_ends_are_the_first_stage_and_the_pool_bit_for_bit(name: str, pool: object, dtype: torch.dtype) -> None:
    outputs, _ = members()
    outputs = outputs.to(dtype)
    assert torch.equal(of(4, 5, (ALL,) * 3, pool=name)(outputs), pool(outputs))  # type: ignore[operator]
    assert torch.equal(of(4, 5, (None,) * 3, pool=name)(outputs), pool(outputs[:1]))  # type: ignore[operator]
    every, none = (0.0, None), (2.0, None)
    assert torch.equal(of(4, 5, (every,) * 3, pool=name)(outputs), pool(outputs))  # type: ignore[operator]
    assert torch.equal(of(4, 5, (none,) * 3, pool=name)(outputs), pool(outputs[:1]))  # type: ignore[operator]


def test_members_that_were_not_asked_are_not_read() -> None:
    outputs, _ = members()
    cascade = Cascade(((3,), (0, 2), (1,)), ((0.05, None), (0.1, 0.6)), 5, (1, 2, 3, 4))
    asked = cascade.asked(outputs)
    assert 0 < int(asked[1].sum()) < int(asked[0].sum()) < 300
    assert torch.equal(asked[0], asked[2])
    holes = outputs.masked_fill(~asked[..., None], torch.nan)
    assert torch.equal(cascade.asked(holes), asked)
    assert torch.equal(cascade(holes), cascade(outputs))
    assert torch.equal(cascade(outputs), mean_logit(outputs, asked.double()))


def test_rows_have_no_order_and_no_company() -> None:
    outputs, _ = members()
    cascade = fit_cascade(*members(seed=1), keep=0.8)
    order = torch.randperm(300, generator=torch.Generator().manual_seed(0))
    assert torch.equal(cascade(outputs[:, order]), cascade(outputs)[order])
    assert torch.equal(torch.cat([cascade(part) for part in outputs.split(7, 1)]), cascade(outputs))


def test_mixing_weights_of_each_example() -> None:
    outputs, _ = members()
    cascade = fit_cascade(*members(seed=1), keep=0.8)
    weights = torch.tensor([1.0, 0.0, 2.0, 1.0])
    assert torch.equal(cascade(outputs, weights[:, None].expand(4, 300)), cascade(outputs, weights))
    chain = Chain((cascade, Temperature(2.0)))
    assert torch.equal(chain(outputs, weights), Temperature(2.0)(cascade(outputs, weights)))
    with pytest.raises(ValueError, match=r"members \[0\] have no weight"):
        cascade(outputs, torch.tensor([0.0, 1.0, 1.0, 1.0]))


def planted(sure: int, unsure: int) -> tuple[Tensor, Tensor]:
    """Sure rows (.9) are right; unsure ones (.6) are half wrong, and the second member knows them."""
    y = torch.tensor([0] * sure + [0, 1] * (unsure // 2))
    first = torch.tensor([[0.9, 0.1]] * sure + [[0.6, 0.4]] * unsure)
    second = torch.where(torch.nn.functional.one_hot(y, 2) > 0, 0.95, 0.05)
    return torch.stack([first, second]).log(), y


@pytest.mark.parametrize("task", ["error", "nll"])
def test_a_planted_threshold_is_found(task: str) -> None:
    outputs, y = planted(60, 20)
    cascade = fit_cascade(outputs, y, task=task, keep=0.9 if task == "nll" else 1.0, pool="mean_probability")
    assert cascade.windows == ((pytest.approx(0.25), None),)  # half-way from .1 to .4
    assert cascade.reached == (1.0, 0.25)
    assert cascade.spent(cascade.asked(outputs)).cost == 1.25


def test_windows_lie_around_the_decision() -> None:
    outputs, y = members(n=1000)
    score = 1 - outputs[0].double().softmax(-1).amax(-1)
    cascade = fit_cascade(outputs, y, task="outside", stages=[[0], [1, 2, 3]], width=0.04, at=0.9)
    low, high = score.quantile(0.86), score.quantile(0.94)
    assert cascade.windows == ((pytest.approx(float(low)), pytest.approx(float(high))),)
    assert cascade.reached == (1.0, pytest.approx(0.08))
    same = fit_cascade(outputs, y, task="risk", stages=[[0], [1, 2, 3]], width=0.04, at=0.9)
    assert same.windows == cascade.windows
    wrong = (outputs[0].argmax(-1) != y)[score.argsort()].double()
    rank = int((wrong.cumsum(0) / torch.arange(1, 1001) <= 0.2).nonzero().max()) + 1
    found = fit_cascade(outputs, y, task="coverage", stages=[[0], [1, 2, 3]], width=0.05, at=0.2).windows[0]
    assert found is not None
    assert found[0] == pytest.approx(float(score.quantile(rank / 1000 - 0.05)))
    assert fit_cascade(outputs, y, task="outside").windows[0] is not None


def test_keep_and_budget() -> None:
    outputs, y = members(n=2000)
    whole = of(4, 5, (ALL,) * 3)
    costs = []
    for keep in (0.5, 0.8, 0.95, 1.0):
        cascade = fit_cascade(outputs, y, keep=keep, task="error")
        wrong = [float((a.argmax(-1) != y).double().mean()) for a in (outputs[0], cascade(outputs), whole(outputs))]
        assert wrong[1] <= wrong[0] - keep * (wrong[0] - wrong[2]) + 1e-12
        costs.append(cascade.spent(cascade.asked(outputs)).share)
    assert costs == sorted(costs)
    assert costs[0] < costs[-1]
    for budget in (0.3, 0.5, 1.0):
        for task in ("nll", "risk", "outside"):
            cascade = fit_cascade(outputs, y, budget=budget, task=task)
            assert cascade.spent(cascade.asked(outputs)).share <= budget
    with pytest.raises(ValueError, match=r"the first stage takes 0\.25 of asking all; the budget is 0\.2"):
        fit_cascade(outputs, y, budget=0.2)


def test_what_is_settled_has_the_first_choice_of_all() -> None:
    outputs, _ = members(k=8, n=2000)
    cascade = fit_cascade(outputs, task="settled")
    assert torch.equal(cascade(outputs).argmax(-1), mean_probability(outputs).argmax(-1))
    assert cascade.spent(cascade.asked(outputs)).share < 0.8
    # By hand: leads of .8 and .4 over one member, with one left of equal weight: 1 - .8 and 1 - .4 are above 0.
    two = torch.tensor([[[0.9, 0.1], [0.7, 0.3]], [[0.8, 0.2], [0.1, 0.9]]]).log()
    pair = of(2, 2, ((-1e-9, None),), pool="mean_probability", score="settled")
    torch.testing.assert_close(pair.scored(0, two), torch.tensor([0.2, 0.6]).double(), rtol=1e-6, atol=0)
    heavy = pair.scored(0, two, torch.tensor([2.0, 1.0]))  # 1 - .8 2 / 1
    torch.testing.assert_close(heavy, torch.tensor([-0.6, 0.2]).double(), rtol=1e-6, atol=0)
    with pytest.raises(ValueError, match="others have no bound"):
        of(2, 2, (ALL,), score="settled")


def test_scores_by_hand() -> None:
    outputs = torch.tensor([[[3.0, 0.0]], [[0.0, 1.0]]])
    p = [1 / (1 + math.exp(-3)), 1 / (1 + math.exp(-1))]
    free = (math.log(math.exp(3) + 1) + 2 * math.log(1 + math.e)) / 3
    weights = torch.tensor([1.0, 2.0])
    assert of(2, 2, (ALL,), score="energy").scored(1, outputs, weights).item() == pytest.approx(-free)
    moved = of(2, 2, (ALL,), score="movement", pool="mean_probability")
    assert moved.scored(0, outputs).item() == math.inf
    mean = (p[0] + 1 - p[1]) / 2
    assert moved.scored(1, outputs).item() == pytest.approx(abs((2 * mean - 1) - (2 * p[0] - 1)))
    entropy = -sum(q * math.log(q) for q in (p[0], 1 - p[0]))
    assert of(2, 2, (ALL,), score="entropy").scored(0, outputs).item() == pytest.approx(entropy)


def test_it_says_what_it_does() -> None:
    outputs, y = planted(60, 20)
    text = fit_cascade(outputs, y, task="error", keep=1.0, costs=(40.0, 120.0), unit="MMACs").explain()
    assert text.splitlines() == [
        "Stage 1 asks member 0 (40 MMACs), by 100.0% of the rows of the fit.",
        "  An example goes on while its max_probability is at least 0.25.",
        "Stage 2 asks member 1 (120 MMACs), by 25.0% of the rows of the fit.",
        "There an example cost 70 MMACs, 43.8% of asking all (160).",
        "The answer is mean_logit of the members that were asked.",
    ]
    ends = {None: "No example", ALL: "Every example", (None, 0.5): "at most 0.5", (0.1, 0.5): "0.1 to 0.5"}
    assert all(said in of(2, 2, (window,)).explain() for window, said in ends.items())


def test_no_gain_asks_nobody_further() -> None:
    outputs, y = members()
    cascade = fit_cascade(outputs[:1].expand(3, 300, 5), y)
    assert cascade.windows == (None, None)
    assert fit_cascade(outputs[:1], y).windows == ()


def test_what_is_odd_is_refused() -> None:
    outputs, y = members()
    cascade = fit_cascade(outputs, y)
    for wrong, said in ((outputs[:3], "4 members"), (outputs[..., :4], "5 classes"), (outputs[0], "whole examples")):
        with pytest.raises(ValueError, match=said):
            cascade(wrong)
    for options, said in (
        ({"task": "nlll"}, "a task is one of"),
        ({"keep": 0.9, "budget": 0.5}, "takes one of"),
        ({"width": 0.1}, "takes one of"),
        ({"task": "settled", "keep": 0.9}, "takes one of"),
        ({"task": "outside", "keep": 0.9}, "takes one of"),
        ({"keep": 1.5}, "are shares"),
        ({"stages": [[0], [1]]}, "every member 0..3"),
        ({"stages": [[0, 1], [1, 2, 3]]}, "every member 0..3"),
        ({"stages": [[0, 1, 2, 3], []]}, "no stage is empty"),
        ({"costs": [1.0, 2.0]}, "one for each of 4 members"),
        ({"costs": [-1.0, 1.0, 1.0, 1.0]}, "not negative"),
        ({"score": "surprise"}, "a score, one of"),
        ({"pool": "vote"}, "has a pool, one of"),
        ({"task": "risk", "at": 1.0}, "between 0 and 1"),
        ({"at": 0.3}, "of coverage, risk, outside; got 0.3"),
        ({"task": "risk", "score": "movement"}, "nothing has moved yet"),
        ({"stages": [[0.0], [1.0, 2.0, 3.0]]}, "every member 0..3"),
    ):
        with pytest.raises(ValueError, match=said):
            fit_cascade(outputs, y, **options)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"no coverage has a risk of 0\.05 or less after stage 1; allow more"):
        fit_cascade(outputs, (outputs[0].argmax(-1) + 1) % 5, task="coverage")
    with pytest.raises(ValueError, match="none are given"):
        fit_cascade(outputs)
    with pytest.raises(ValueError, match="20 rows or more"):
        fit_cascade(outputs[:, :19], y[:19])
    for value in (torch.nan, torch.inf):
        for task in ("nll", "outside", "settled"):
            with pytest.raises(ValueError, match=r"the outputs hold NaN, \+inf"):
                fit_cascade(outputs.masked_fill(outputs > 5, value), y, task=task)
    with pytest.raises(ValueError, match="a row without a possible class"):
        fit_cascade(outputs.index_fill(1, torch.tensor([3]), -torch.inf), y)
    with pytest.raises(ValueError, match="1 windows; got 2"):
        of(2, 2, (None, None))
    with pytest.raises(ValueError, match="by as many shares"):
        of(2, 2, (None,), reached=(1.0,))
    for window in ((torch.nan, None), (None, torch.nan), (0.9, 0.1)):
        with pytest.raises(ValueError, match="numbers or None for an open end, low first"):
            of(2, 2, (window,))
    for classes in (0, 4.5, "4"):
        with pytest.raises(ValueError, match="classes are a number, one"):
            of(2, classes, (None,))  # type: ignore[arg-type]
