"""Linear pool: a slow EM loop, planted weights, two tiers, and members that know the rows by heart."""

import pytest
import torch
from torch.nn.functional import nll_loss

from pluria.core.ensemble import stack
from pluria.pool import Linear, fit_linear, mean_probability, out_of_fold


def planted(weights, n=20_000, c=4, seed=0):
    """Members' log-probabilities, and targets drawn from their weighted mean."""
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randn(len(weights), n, c, generator=generator, dtype=torch.float64).mul(3).log_softmax(-1)
    pooled = mean_probability(rows, torch.tensor(weights)).exp()
    return rows, torch.multinomial(pooled, 1, generator=generator)[:, 0]


def expectation_maximisation(rows, y, rounds=20_000):
    """Weights by the textbook loop: responsibilities, then their means."""
    likelihoods = rows.gather(-1, y.expand(len(rows), -1)[..., None])[..., 0].exp()
    weights = torch.full((len(rows),), 1 / len(rows), dtype=torch.float64)
    for _ in range(rounds):
        responsible = weights[:, None] * likelihoods
        weights = (responsible / responsible.sum(0)).mean(1)
    return weights.tolist()


def test_hand_worked_fit():
    # Two members, each sure of one class with 0.9: of 30 rows 21 are of class 0, so 0.1 + 0.8 w = 0.7.
    rows = torch.tensor([[[0.9, 0.1]] * 30, [[0.1, 0.9]] * 30], dtype=torch.float64).log()
    fitted = fit_linear(rows, torch.tensor([0] * 21 + [1] * 9))
    assert fitted.weights == pytest.approx((0.75, 0.25), abs=1e-9)
    torch.testing.assert_close(fitted(rows)[0].exp(), torch.tensor([0.7, 0.3]).double())


@pytest.mark.parametrize("seed", range(3))
def test_equals_expectation_maximisation(seed):
    rows, y = planted((0.5, 0.3, 0.2, 0.0), n=200, seed=seed)
    assert fit_linear(rows, y).weights == pytest.approx(expectation_maximisation(rows, y), abs=1e-4)


def test_planted_weights_are_found():
    assert fit_linear(*planted((0.6, 0.3, 0.1, 0.0))).weights == pytest.approx((0.6, 0.3, 0.1, 0.0), abs=0.02)


def test_no_weights_do_better():
    rows, y = planted((0.5, 0.5, 0.0), n=300)
    best = nll_loss(fit_linear(rows, y)(rows), y).item()
    for weights in torch.distributions.Dirichlet(torch.ones(3).double()).sample((50,)):
        assert nll_loss(mean_probability(rows, weights), y).item() >= best - 1e-12
    assert all(nll_loss(member, y).item() >= best for member in rows)


def test_two_tiers_by_hand():
    """The tiers one by one: within each group, then between the pooled groups."""
    rows, y = planted((0.4, 0.1, 0.2, 0.3), n=500)
    fitted = fit_linear(rows, y, groups=["a", "b", "a", "b"])
    inner = [fit_linear(rows[own], y) for own in ([0, 2], [1, 3])]
    outer = fit_linear(torch.stack([pool(rows[own]) for pool, own in zip(inner, ([0, 2], [1, 3]), strict=True)]), y)
    wanted = [0.0] * 4
    for group, own in enumerate(([0, 2], [1, 3])):
        for place, member in enumerate(own):
            wanted[member] = outer.weights[group] * inner[group].weights[place]
    assert fitted.weights == pytest.approx(wanted, abs=1e-8)
    assert fitted.between == pytest.approx({"a": outer.weights[0], "b": outer.weights[1]}, abs=1e-8)


def test_equal_within_groups_that_are_good_and_bad():
    generator = torch.Generator().manual_seed(0)
    y = torch.randint(4, (400,), generator=generator)
    known = torch.nn.functional.one_hot(y, 4) * torch.tensor([3.0, 3.0, 0.0, 0.0, 0.0]).double()[:, None, None]
    rows = (torch.randn(5, 400, 4, generator=generator).double() + known).log_softmax(-1)
    fitted = fit_linear(rows, y, groups=[1, 1, 2, 2, 2], within="equal")
    assert fitted.weights[0] == fitted.weights[1]
    assert fitted.weights[2] == fitted.weights[3] == fitted.weights[4]
    assert fitted.between[1] > 0.95
    assert nll_loss(fitted(rows), y) < nll_loss(mean_probability(rows), y)


def test_one_group_and_a_group_each_are_the_flat_fit():
    rows, y = planted((0.6, 0.3, 0.1), n=300)
    flat = fit_linear(rows, y)
    assert flat.between == {}
    for groups in ([7, 7, 7], [1, 2, 3]):
        assert fit_linear(rows, y, groups=groups).weights == pytest.approx(flat.weights, abs=1e-9)


def test_a_member_that_knows_the_rows_by_heart_takes_all_of_them():
    """The leak: in sample it looks best, and fresh rows show that it is worst."""
    generator = torch.Generator().manual_seed(0)
    y, fresh = torch.randint(4, (2, 300), generator=generator)
    honest = torch.randn(2, 2, 300, 4, generator=generator).double()
    honest += torch.nn.functional.one_hot(torch.stack([y, fresh]), 4)[:, None] * 1.5
    by_heart = torch.nn.functional.one_hot(y, 4).double() * 8
    rows = torch.cat([honest[0], by_heart[None]]).log_softmax(-1)
    later = torch.cat([honest[1], by_heart[None]]).log_softmax(-1)
    leaked, sound = fit_linear(rows, y), fit_linear(later, fresh)
    assert leaked.weights[2] > 0.99
    assert sound.weights[2] < 0.05
    # Folds over rows do not help: the member has seen them all.
    assert nll_loss(out_of_fold(fit_linear, rows, y), y) < 0.01 < nll_loss(leaked(later), fresh)


def test_members_that_hold_a_target_impossible_are_allowed_as_long_as_one_does_not():
    rows, y = planted((0.5, 0.5), n=100)
    sure = torch.nn.functional.one_hot(y, 4).double().log()
    sure[:10] = sure[:10].roll(1, dims=-1)
    both = torch.stack([rows[0], sure])
    fitted = fit_linear(both, y)
    assert 0 < fitted.weights[1] < 1
    assert nll_loss(fitted(both), y).isfinite()
    assert fit_linear(both, y, groups=[0, 1]).weights == pytest.approx(fitted.weights, abs=1e-6)


def test_weights_fit_an_ensemble():
    fitted = fit_linear(*planted((0.7, 0.3), n=100))
    ensemble = stack([{"w": torch.zeros(1)}, {"w": torch.ones(1)}]).reweight(torch.tensor(fitted.weights).double())
    assert ensemble.weights.tolist() == pytest.approx(fitted.weights)


def test_what_does_not_fit_is_refused():
    rows, y = planted((0.7, 0.3), n=40)
    with pytest.raises(ValueError, match="fitted on 2 members"):
        Linear((0.5, 0.5))(rows[:1])
    for weights in ((0.5, 0.6), (-0.5, 1.5), ()):
        with pytest.raises(ValueError, match="sum to one"):
            Linear(weights)
    with pytest.raises(ValueError, match="a group each"):
        Linear((0.5, 0.5), groups=(1,))
    with pytest.raises(ValueError, match="a group each"):
        fit_linear(rows, y, groups=[1, 2, 3])
    with pytest.raises(ValueError, match="within must be"):
        fit_linear(rows, y, groups=[1, 2], within="best")
