"""Vector scaling and members' temperatures: planted numbers, the temperature as a limit, the order that is better."""

import numpy as np
import pytest
import torch
from torch.nn.functional import nll_loss

from pluria.pool import (
    Chain,
    MemberTemperatures,
    VectorScaling,
    fit_member_temperatures,
    fit_temperature,
    fit_vector_scaling,
    mean_probability,
)


def planted(scales, offsets, n=20_000, seed=0):
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randn(n, len(scales), generator=generator).double().mul(2).log_softmax(-1)
    law = (rows * torch.tensor(scales) + torch.tensor(offsets)).softmax(-1)
    return rows, torch.multinomial(law, 1, generator=generator)[:, 0]


def test_planted_scales_and_offsets_are_found():
    rows, y = planted((0.5, 1.0, 1.5), (0.6, 0.0, -0.6))
    fitted = fit_vector_scaling(rows, y, ridge=0.0)
    assert fitted.scales == pytest.approx((0.5, 1.0, 1.5), abs=0.06)
    # Offsets have no place of their own: only their differences count.
    assert [b - fitted.offsets[1] for b in fitted.offsets] == pytest.approx((0.6, 0.0, -0.6), abs=0.08)
    assert nll_loss(fitted(rows), y) < nll_loss(fit_temperature(rows, y)(rows), y) - 0.02


def test_hand_worked_call_and_impossible_classes():
    scaling = VectorScaling((2.0, 1.0, 0.0), (0.0, 0.0, 1.0))
    rows = torch.tensor([[0.5, 0.5, 0.0], [0.2, 0.3, 0.5]]).double().log()
    pooled = scaling(rows).exp()
    # 1/4 : 1/2, and what is impossible stays so even with a scale of zero.
    assert pooled[0].tolist() == pytest.approx([1 / 3, 2 / 3, 0.0])
    parts = torch.tensor([0.04, 0.3, torch.e])
    assert pooled[1].tolist() == pytest.approx((parts / parts.sum()).tolist())


def test_a_strong_ridge_leaves_the_temperature():
    rows, y = planted((0.5, 1.0, 1.5), (0.6, 0.0, -0.6), n=500)
    torch.testing.assert_close(
        fit_vector_scaling(rows, y, ridge=1e9)(rows), fit_temperature(rows, y)(rows), atol=1e-5, rtol=0
    )


def test_logits_and_log_probabilities_are_one():
    rows, y = planted((0.5, 1.0, 1.5), (0.6, 0.0, -0.6), n=500)
    shifted = rows + torch.randn(500, 1, generator=torch.Generator().manual_seed(1)).double()
    assert fit_vector_scaling(shifted, y).scales == pytest.approx(fit_vector_scaling(rows, y).scales, rel=1e-6)


def test_dense_rows_ignored_targets_and_a_class_without_a_row():
    rows, y = planted((0.5, 1.0, 1.5), (0.6, 0.0, -0.6), n=600)
    marked = y.masked_fill(y == 2, -100)
    fitted = fit_vector_scaling(rows.view(100, 6, 3), marked.view(100, 6))
    assert fitted == fit_vector_scaling(rows[y != 2], y[y != 2])
    assert all(map(np.isfinite, (*fitted.scales, *fitted.offsets)))
    assert bool((fitted(rows).exp() > 0).all())


def test_members_temperatures_are_theirs():
    rows, y = planted((1.0, 1.0, 1.0), (0.0, 0.0, 0.0), n=4000)
    members = torch.stack([rows * 3, rows / 2])
    fitted = fit_member_temperatures(members, y)
    assert fitted.values == pytest.approx((3.0, 0.5), rel=0.06)
    assert fitted.values == tuple(fit_temperature(one, y).value for one in members)
    scaled = fitted(members.float())
    assert (scaled.dtype, scaled.shape) == (torch.float32, members.shape)
    torch.testing.assert_close(scaled[0].double(), scaled[1].double(), atol=0.3, rtol=0.1)


def test_the_pool_of_calibrated_members_is_too_cautious():
    """So a temperature has to follow the pool, whatever was done to the members."""
    generator = torch.Generator().manual_seed(0)
    y = torch.randint(3, (4000,), generator=generator)
    known = torch.nn.functional.one_hot(y, 3).double()
    members = known * 1.5 + torch.randn(4, 4000, 3, generator=generator).double() * 1.2
    first = fit_member_temperatures(members, y)
    pooled = mean_probability(first(members))
    after = fit_temperature(pooled, y)
    assert after.value < 0.85
    assert nll_loss(after(pooled), y) < nll_loss(pooled, y) - 0.02
    chain = Chain((first, "mean_probability", after))
    assert torch.equal(chain(members), after(pooled))


def test_on_eight_networks_the_temperature_behind_the_pool_gives_more(real_data):
    from pool.test_log_linear import eight_networks

    rows, y = eight_networks(real_data)
    (fitting, targets), (fresh, truth) = (rows[:, :2000], y[:2000]), (rows[:, 2000:], y[2000:])

    def figures(step):
        pooled = mean_probability(step(fitting))
        after = fit_temperature(pooled, targets)
        answer = mean_probability(step(fresh))
        return nll_loss(answer, truth).item(), nll_loss(after(answer), truth).item()

    plain, behind = figures(lambda x: x)
    before, both = figures(fit_member_temperatures(fitting, targets))
    assert plain == pytest.approx(0.209, abs=0.002)
    assert behind == pytest.approx(0.151, abs=0.002)
    # Members of different kinds: their own temperatures alone make the pool worse, and help once one follows it.
    assert before == pytest.approx(0.229, abs=0.002)
    assert both == pytest.approx(0.140, abs=0.002)


def test_what_does_not_fit_is_refused():
    rows, y = planted((1.0, 1.0, 1.0), (0.0, 0.0, 0.0), n=40)
    for call, said in (
        (lambda: fit_vector_scaling(rows, y)(rows[:, :2]), "fitted on 3 classes"),
        (lambda: fit_vector_scaling(rows, y, ridge=-1.0), "ridge"),
        (lambda: fit_vector_scaling(rows * torch.nan, y), "NaN"),
        (lambda: VectorScaling((1.0,), (1.0, 2.0)), "scales and offsets"),
        (lambda: VectorScaling((float("nan"),), (1.0,)), "finite"),
        (lambda: MemberTemperatures((1.0, 1.0), (False, False))(rows[None]), "fitted on 2 members"),
        (lambda: MemberTemperatures((0.0,), (False,)), "positive"),
        (lambda: MemberTemperatures((1.0,), ()), "for each member"),
        (lambda: fit_member_temperatures(rows, y), r"\[K, N, ..., C\]"),
    ):
        with pytest.raises(ValueError, match=said):
            call()
