"""Log-linear pool: planted exponents, temperature as its case of one member, and eight published networks."""

import math

import numpy as np
import pytest
import torch
from torch.nn.functional import nll_loss

from pluria.pool import (
    LogLinear,
    fit_linear,
    fit_log_linear,
    fit_temperature,
    mean_logit,
    mean_probability,
    out_of_fold,
)


def planted(exponents, n=20_000, c=4, seed=0):
    """Members' log-probabilities, and targets drawn from the product of their powers."""
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randn(len(exponents), n, c, generator=generator, dtype=torch.float64).mul(2).log_softmax(-1)
    pooled = torch.tensordot(torch.tensor(exponents).double(), rows, 1).softmax(-1)
    return rows, torch.multinomial(pooled, 1, generator=generator)[:, 0]


def eight_networks(folder):
    """CIFAR-10 test rows: three ResNets, ResNet-18 twice, LeNet-5, WRN-16-4, and cross-validated predictions."""
    logits = np.load(folder / "cifar10_resnet_logits" / "logits.npz")
    kept, wide = (np.load(folder / name) for name in ("cifar10_kd_probs/probs.npz", "netcal_predictions/cifar10.npz"))
    last = np.load(folder / "label_errors" / "cifar10_test_set.npz")
    probs = [*(kept[name] for name in kept), wide["lenet-5"], wide["wideresnet-16-4"], last["probs"]]
    floored = [torch.from_numpy(p).double().clamp_min(1e-12).log() for p in probs]
    rows = torch.stack([*torch.from_numpy(logits["test"]).double(), *floored]).log_softmax(-1)
    return rows, torch.from_numpy(logits["y_test"].astype(np.int64))


def test_hand_worked_pool_and_fit():
    rows = torch.tensor([[[0.8, 0.2]], [[0.4, 0.6]]], dtype=torch.float64).log()
    # 0.8^2 0.4^1/2 : 0.2^2 0.6^1/2
    one, two = 0.64 * 0.4**0.5, 0.04 * 0.6**0.5
    torch.testing.assert_close(LogLinear((2.0, 0.5))(rows).exp()[0, 0].item(), one / (one + two))
    # Every row says 4:1 and three of four are right: 4^a = 3.
    same = torch.tensor([[[0.8, 0.2]] * 40], dtype=torch.float64).log()
    fitted = fit_log_linear(same, torch.tensor([0, 0, 0, 1] * 10))
    assert fitted.exponents == pytest.approx([math.log(3) / math.log(4)], rel=1e-9)


@pytest.mark.parametrize("exponents", [(0.5, 0.5), (1.2, 0.3, 0.6), (0.0, 0.9)])
def test_planted_exponents_are_found(exponents):
    fitted = fit_log_linear(*planted(exponents))
    assert fitted.exponents == pytest.approx(exponents, abs=0.04)
    assert not fitted.clamped


def test_one_member_is_a_temperature():
    rows, y = planted((0.6,), n=500)
    assert fit_log_linear(rows, y).exponents[0] == pytest.approx(1 / fit_temperature(rows[0], y).value, rel=1e-8)


@pytest.mark.parametrize("ridge", [0.0, 1.0])
def test_equal_members_share_the_temperature_evenly(ridge):
    rows, y = planted((0.6,), n=500)
    fitted = fit_log_linear(rows.expand(3, -1, -1), y, ridge=ridge)
    assert fitted.exponents == pytest.approx([1 / fit_temperature(rows[0], y).value / 3] * 3, rel=1e-7)


def test_the_ridge_goes_from_free_to_equal_exponents():
    rows, y = planted((1.2, 0.1), n=400)
    apart = [max(e) - min(e) for e in (fit_log_linear(rows, y, ridge=r).exponents for r in (0.0, 1.0, 1e3, 1e9))]
    assert apart == sorted(apart, reverse=True)
    strong = fit_log_linear(rows, y, ridge=1e9).exponents
    size = 1 / fit_temperature(mean_logit(rows), y).value
    assert strong == pytest.approx([size / 2, size / 2], rel=1e-5)


@pytest.mark.parametrize("ridge", [0.0, 5.0])
def test_the_gradient_is_zero_where_exponents_are_free(ridge):
    rows, y = planted((1.0, 0.4, 0.0, 0.2), n=300)
    fitted = fit_log_linear(rows, y, ridge=ridge)
    a = torch.tensor(fitted.exponents, dtype=torch.float64, requires_grad=True)
    loss = nll_loss(torch.tensordot(a, rows, 1).log_softmax(-1), y)
    (loss + ridge / 2 / 300 * (a - a.mean()).square().sum()).backward()
    assert a.grad[a > 0].abs().max() < 1e-9
    assert bool((a.grad[a == 0] >= 0).all())


def test_blocks_of_rows_change_nothing(monkeypatch):
    rows, y = planted((0.7, 0.3), n=300)
    whole = fit_log_linear(rows, y).exponents
    monkeypatch.setattr("pluria.pool.log_linear.BLOCK", 100)
    assert fit_log_linear(rows, y).exponents == pytest.approx(whole, rel=1e-9)


def test_a_hundred_members_with_few_rows():
    exponents = [0.3] * 5 + [0.0] * 95
    rows, y = planted(exponents, n=1000)
    fitted = fit_log_linear(rows, y)
    fresh, targets = planted(exponents, n=2000, seed=1)
    assert min(fitted.exponents[:5]) > max(fitted.exponents[5:])
    assert nll_loss(fitted(fresh), targets) < nll_loss(mean_logit(fresh), targets) - 0.1


def test_a_fit_that_runs_away_says_so():
    y = torch.arange(20) % 2
    right = torch.nn.functional.one_hot(y, 2).double().expand(2, 20, 2)
    fitted = fit_log_linear(right, y)
    assert fitted.clamped
    assert sum(fitted.exponents) == pytest.approx(1e3)
    # The second member knows nothing: the equal pool is wrong at times, so the search itself has to run away.
    noise = torch.randn(20, 2, generator=torch.Generator().manual_seed(0)).double() * 3
    alone = fit_log_linear(torch.stack([right[0], noise]), y, ridge=0.0)
    assert alone.clamped
    assert alone.exponents[0] > 900
    assert sum(alone.exponents) == pytest.approx(1e3)
    wrong = fit_log_linear(right, 1 - y)
    assert wrong.clamped
    assert sum(wrong.exponents) == pytest.approx(1e-3)


def test_impossible_classes():
    rows, y = planted((0.7, 0.3), n=400)
    wider = torch.cat([rows, torch.tensor([-torch.inf, -3.0]).double()[:, None, None].expand(2, 400, 1)], dim=-1)
    fitted = fit_log_linear(wider, y)
    assert fitted.exponents == pytest.approx(fit_log_linear(rows, y).exponents, rel=1e-7)
    assert bool((fitted(wider)[:, -1] == -torch.inf).all())
    rows[1, 3, y[3]] = -torch.inf
    with pytest.raises(ValueError, match="member 1 holds the target of row 3 impossible"):
        fit_log_linear(rows, y)


def test_what_does_not_fit_is_refused():
    rows, y = planted((0.7, 0.3), n=40)
    with pytest.raises(ValueError, match="fitted on 2 members"):
        LogLinear((1.0, 1.0))(rows[:1])
    for exponents in ((1.0, -1.0), (0.0, 0.0), (math.nan,), ()):
        with pytest.raises(ValueError, match="exponents must be"):
            LogLinear(exponents)
    for ridge in (-1.0, math.nan):
        with pytest.raises(ValueError, match="ridge must be"):
            fit_log_linear(rows, y, ridge=ridge)


def test_eight_published_networks(real_data):
    rows, y = eight_networks(real_data)
    (fitting, targets), (fresh, truth) = (rows[:, :2000], y[:2000]), (rows[:, 2000:], y[2000:])

    def scaled(pool):
        return nll_loss(fit_temperature(pool(fitting), targets)(pool(fresh)), truth).item()

    fitted = fit_log_linear(fitting, targets)
    assert nll_loss(fitted(fresh), truth).item() == pytest.approx(0.127, abs=0.002)
    assert nll_loss(mean_probability(fresh), truth).item() == pytest.approx(0.209, abs=0.002)
    assert scaled(mean_probability) == pytest.approx(0.151, abs=0.002)
    assert scaled(mean_logit) == pytest.approx(0.140, abs=0.002)
    assert nll_loss(fit_linear(fitting, targets)(fresh), truth).item() == pytest.approx(0.140, abs=0.002)
    judged = nll_loss(out_of_fold(fit_log_linear, fitting, targets), targets).item()
    assert nll_loss(fitted(fitting), targets).item() < judged < 0.135
