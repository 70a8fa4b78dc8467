"""Threshold-weighted CRPS: scoringrules, parts that add up, the integral of its definition."""

import pytest
import torch

from pluria.score import crps, threshold_crps


def drawn(k=6, n=30, seed=0):
    generator = torch.Generator().manual_seed(seed)
    outputs = torch.randn(k, n, generator=generator, dtype=torch.float64)
    return outputs, torch.randn(n, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize(("fair", "estimator"), [(False, "nrg"), (True, "fair")])
@pytest.mark.parametrize("ends", [(0.5, float("inf")), (float("-inf"), 0.0), (-0.5, 0.7)])
def test_scoringrules_agrees(fair, estimator, ends, scoringrules):
    outputs, y = drawn()
    wanted = scoringrules.twcrps_ensemble(y.numpy(), outputs.T.numpy(), a=ends[0], b=ends[1], estimator=estimator)
    found = threshold_crps(outputs, y, lower=ends[0], upper=ends[1], fair=fair)
    torch.testing.assert_close(found, torch.from_numpy(wanted), rtol=1e-12, atol=1e-12)


def test_parts_add_up_to_the_crps():
    outputs, y = drawn()
    weights = torch.rand(6, generator=torch.Generator().manual_seed(1))
    below = threshold_crps(outputs, y, weights, upper=0.3)
    above = threshold_crps(outputs, y, weights, lower=0.3)
    torch.testing.assert_close(below + above, crps(outputs, y, weights), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(threshold_crps(outputs, y), crps(outputs, y), rtol=0, atol=0)


def test_equals_the_integral_of_the_definition():
    outputs, y = drawn(k=3, n=4)
    grid = torch.linspace(0.2, 1.5, 200_001, dtype=torch.float64)
    gap = (outputs[..., None] <= grid).double().mean(0) - (y[:, None] <= grid).double()
    integral = torch.trapezoid(gap.square(), grid)
    found = threshold_crps(outputs, y, lower=0.2, upper=1.5)
    torch.testing.assert_close(found, integral, rtol=0, atol=1e-4)


def test_what_is_refused():
    outputs, y = drawn()
    for ends in ((1.0, 1.0), (1.0, 0.0), (float("nan"), 1.0)):
        with pytest.raises(ValueError, match="below the upper"):
            threshold_crps(outputs, y, lower=ends[0], upper=ends[1])
    with pytest.raises(ValueError, match="do not fit"):
        threshold_crps(outputs, y[:3])
