"""Regression scores: hand-worked, against double loops and scoringrules."""

import math

import pytest
import torch

from pluria.score import CRPS, MSE, RMSE, crps, gaussian_nll, squared_error, tally


def drawn(k=6, n=30, seed=0):
    generator = torch.Generator().manual_seed(seed)
    outputs = torch.randn(k, n, generator=generator, dtype=torch.float64)
    weights = torch.rand(k, generator=generator, dtype=torch.float64)
    return outputs, torch.randn(n, generator=generator, dtype=torch.float64), weights


def slow_crps(members, y, weights, fair):
    total = sum(weights)
    shares = [w / total for w in weights]
    spread = sum(
        v * w * abs(a - b) for v, a in zip(shares, members, strict=True) for w, b in zip(shares, members, strict=True)
    )
    spread /= (1 - sum(w * w for w in shares)) if fair else 1
    return sum(w * abs(a - y) for w, a in zip(shares, members, strict=True)) - spread / 2


def test_hand_worked_errors():
    assert squared_error(torch.tensor([[1.0, 2.0]]), torch.tensor([[4.0, 2.0]])).item() == 4.5
    nll = gaussian_nll(torch.tensor([1.0]), torch.tensor([4.0]), torch.tensor([3.0])).item()
    assert nll == pytest.approx(0.5 * math.log(2 * math.pi * 4) + 0.5, rel=1e-12)


def test_gaussian_nll_equals_torch():
    mean, y, _ = drawn(k=1)
    variance = mean[0].square() + 0.1
    wanted = -torch.distributions.Normal(mean[0], variance.sqrt()).log_prob(y)
    torch.testing.assert_close(gaussian_nll(mean[0], variance, y), wanted, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("fair", [False, True])
def test_crps_equals_the_double_loop(fair):
    outputs, y, weights = drawn()
    slow = [slow_crps(outputs[:, n].tolist(), y[n].item(), weights.tolist(), fair) for n in range(len(y))]
    torch.testing.assert_close(crps(outputs, y, weights, fair=fair), torch.tensor(slow, dtype=torch.float64))
    assert not torch.allclose(crps(outputs, y, fair=fair), torch.tensor(slow, dtype=torch.float64))


@pytest.mark.parametrize(("fair", "estimator"), [(False, "nrg"), (True, "fair")])
def test_scoringrules_agrees(fair, estimator, scoringrules):
    outputs, y, _ = drawn()
    wanted = scoringrules.crps_ensemble(y.numpy(), outputs.T.numpy(), estimator=estimator)
    torch.testing.assert_close(crps(outputs, y, fair=fair), torch.from_numpy(wanted), rtol=1e-12, atol=1e-12)


def test_crps_of_one_member_is_the_absolute_error():
    outputs, y, _ = drawn(k=1)
    torch.testing.assert_close(crps(outputs, y), (outputs[0] - y).abs())


def test_crps_weights_copies_orders_and_members_of_weight_zero():
    outputs, y, weights = drawn()
    doubled = weights.clone()
    doubled[0] *= 2
    twice = crps(torch.cat([outputs, outputs[:1]]), y, torch.cat([weights, weights[:1]]))
    torch.testing.assert_close(twice, crps(outputs, y, doubled), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(
        crps(outputs.flip(0), y, weights.flip(0)), crps(outputs, y, weights), rtol=1e-12, atol=1e-12
    )
    absent = torch.cat([outputs, torch.full((1, len(y)), torch.nan)])
    wider = torch.cat([weights, torch.zeros(1, dtype=torch.float64)])
    torch.testing.assert_close(crps(absent, y, wider), crps(outputs, y, weights), rtol=1e-12, atol=1e-12)


def test_fair_crps_has_the_expectation_of_the_law_whatever_k_is():
    # Against y = 0 and members from N(0, 1) the score of the law itself is (sqrt 2 - 1) / sqrt pi.
    law = (math.sqrt(2) - 1) / math.sqrt(math.pi)
    outputs, _, _ = drawn(k=2, n=40_000)
    values = crps(outputs, torch.zeros(40_000, dtype=torch.float64), fair=True)
    assert abs(values.mean().item() - law) < 4 * values.std().item() / 200
    plain = crps(outputs, torch.zeros(40_000, dtype=torch.float64))
    assert plain.mean().item() - law > 10 * plain.std().item() / 200


def test_crps_far_from_zero_keeps_its_digits():
    outputs, y, _ = drawn()
    shifted = crps(outputs + 2.0**30, y + 2.0**30)
    torch.testing.assert_close(shifted, crps(outputs, y), rtol=0, atol=1e-6)


def test_crps_is_least_at_the_truth():
    atoms = torch.tensor([-1.0, 0.0, 2.0], dtype=torch.float64)
    truth = torch.tensor([0.2, 0.5, 0.3], dtype=torch.float64)
    generator = torch.Generator().manual_seed(0)

    def expected(weights):
        return float((truth * crps(atoms[:, None].expand(3, 3), atoms, weights)).sum())

    for forecast in torch.rand(100, 3, generator=generator, dtype=torch.float64):
        assert expected(forecast) > expected(truth)


def test_they_tally():
    outputs, y, weights = drawn()
    pooled = outputs.mean(0)
    parts = [
        tally((MSE, RMSE, CRPS), pooled[s], y[s], outputs=outputs[:, s], weights=weights)
        for s in (slice(0, 7), slice(7, None))
    ]
    figures = (parts[0] + parts[1]).figures()
    assert figures["mse"] == pytest.approx((pooled - y).square().mean().item(), rel=1e-12)
    assert figures["rmse"] == pytest.approx(math.sqrt(figures["mse"]), rel=1e-12)
    assert figures["crps"] == pytest.approx(crps(outputs, y, weights).mean().item(), rel=1e-12)
    with pytest.raises(ValueError, match="pass outputs"):
        tally((CRPS,), pooled, y)


def test_what_is_refused():
    outputs, y, weights = drawn()
    with pytest.raises(ValueError, match="one shape"):
        squared_error(y, y[:3])
    with pytest.raises(ValueError, match="floating point"):
        squared_error(y.long(), y.long())
    with pytest.raises(ValueError, match="positive"):
        gaussian_nll(y, torch.zeros_like(y), y)
    with pytest.raises(ValueError, match="do not fit"):
        crps(outputs, y[:3])
    with pytest.raises(ValueError, match="weights must be"):
        crps(outputs, y, weights[:2])
    with pytest.raises(ValueError, match="positive sum"):
        crps(outputs, y, torch.zeros(6))
    with pytest.raises(ValueError, match="two members"):
        crps(outputs[:1], y, fair=True)
