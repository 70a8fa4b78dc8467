"""Greedy selection: a slow loop, hand-counted rounds, bags, other losses, and the search's own path."""

import pytest
import torch
from torch.nn.functional import nll_loss

from pluria.core.ensemble import stack
from pluria.pool import fit_linear, greedy, mean_probability


def labelled(members=6, n=120, c=4, seed=0):
    generator = torch.Generator().manual_seed(seed)
    y = torch.randint(c, (n,), generator=generator)
    known = torch.nn.functional.one_hot(y, c) * torch.linspace(0.5, 2, members)[:, None, None]
    return (1.5 * torch.randn(members, n, c, generator=generator) + known).double().log_softmax(-1), y


def slow(rows, y, rounds, start):
    """Counts by re-pooling a list of members in every round."""

    def loss(taken):
        mixture = torch.stack([rows[k].exp() for k in taken]).mean(0)
        return -sum(float(mixture[n, y[n]].log()) for n in range(len(y))) / len(y)

    members = range(len(rows))
    taken = sorted(members, key=lambda k: loss([k]))[:start]
    path = [(loss(taken), list(taken))]
    for _ in range(rounds):
        taken = [*taken, min(members, key=lambda k: loss([*taken, k]))]
        path.append((loss(taken), taken))
    best = min(path, key=lambda one: one[0])[1]
    return [best.count(k) / len(best) for k in members]


@pytest.mark.parametrize("start", [1, 3])
def test_equals_a_slow_loop(start):
    rows, y = labelled(n=40)
    assert greedy(rows, y, rounds=8, start=start).tolist() == pytest.approx(slow(rows, y, 8, start), abs=1e-12)


def test_hand_counted_rounds():
    # The weight that fits is 0.75 for the first; with three more rounds after it the path is 1/1, 1/2, 2/3, 3/4.
    rows = torch.tensor([[[0.9, 0.1]] * 40, [[0.1, 0.9]] * 40], dtype=torch.float64).log()
    y = torch.tensor([0] * 28 + [1] * 12)
    assert greedy(rows, y, rounds=0).tolist() == [1.0, 0.0]
    assert greedy(rows, y, rounds=2).tolist() == pytest.approx([2 / 3, 1 / 3])
    assert greedy(rows, y, rounds=3).tolist() == pytest.approx([0.75, 0.25])
    # Later rounds leave the best place and are not kept.
    assert greedy(rows, y, rounds=5).tolist() == pytest.approx([0.75, 0.25])


def test_many_rounds_come_near_the_best_weights():
    rows, y = labelled()
    best = nll_loss(fit_linear(rows, y)(rows), y).item()
    reached = nll_loss(mean_probability(rows, greedy(rows, y)), y).item()
    assert best <= reached <= best + 1e-3
    assert reached <= min(nll_loss(member, y).item() for member in rows)


def test_a_loss_of_ones_own():
    rows, y = labelled()
    plain = greedy(rows, y, rounds=20)
    torch.testing.assert_close(greedy(rows, y, rounds=20, loss=nll_loss), plain)

    def error(pooled, targets):
        return (pooled.argmax(-1) != targets).double().mean()

    fewest = greedy(rows, y, rounds=20, loss=error)
    assert error(mean_probability(rows, fewest), y) <= error(mean_probability(rows, plain), y)
    with pytest.raises(ValueError, match="the loss is NaN"):
        greedy(rows, y, loss=lambda pooled, targets: float("nan"))


def test_of_equal_members_the_first_is_taken():
    rows, y = labelled(1)
    assert greedy(rows.expand(3, -1, -1), y, rounds=5).tolist() == [1.0, 0.0, 0.0]


def test_bags_are_drawn_by_the_key_and_average():
    rows, y = labelled(8)
    one, same, other = (greedy(rows, y, rounds=10, bags=6, key=key) for key in (3, 3, 4))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    assert float(one.sum()) == pytest.approx(1.0)
    # The best member is not in every bag, so other bags start with others.
    assert (greedy(rows, y, rounds=0, bags=8, share=0.25) > 0).sum() > 1
    # All members in every bag: bagging changes nothing.
    torch.testing.assert_close(greedy(rows, y, rounds=10, bags=6, share=1.0), greedy(rows, y, rounds=10))
    assert (one > 0).sum() >= (greedy(rows, y, rounds=10) > 0).sum()


def test_weights_fit_an_ensemble():
    rows, y = labelled(2)
    ensemble = stack([{"w": torch.zeros(1)}, {"w": torch.ones(1)}])
    weights = greedy(rows, y)
    assert torch.equal(ensemble.reweight(weights).weights, weights)


@pytest.mark.parametrize("options", [{"rounds": -1}, {"start": 0}, {"start": 7}, {"bags": 0}, {"share": 0.0}])
def test_options_out_of_range_are_refused(options):
    with pytest.raises(ValueError, match="are wanted"):
        greedy(*labelled(), **options)
