"""Learned quantile weights: against linear programs, with gaps, by groups, and on noise whose size depends on x."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
import torch
from scipy.optimize import linprog

from pluria.pool.quantile_weights import QuantileWeights, fit_quantile_weights
from pluria.pool.quantiles import mean_quantiles
from pluria.score import crossing_share, pinball

NAN = float("nan")
LEVELS = torch.tensor([0.1, 0.5, 0.9], dtype=torch.float64)
NORMAL = torch.distributions.Normal(0.0, 1.0)


def drawn(n=200, seed=0):
    """Three members with an offset, a width and noise of their own; y is normal around x."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, generator=generator, dtype=torch.float64)
    y = x + torch.randn(n, generator=generator, dtype=torch.float64)
    members = [
        x[:, None] + shift + noise * torch.randn(n, 1, generator=generator, dtype=torch.float64)
        + width * NORMAL.icdf(LEVELS)
        for shift, width, noise in ((1.0, 0.5, 0.2), (-0.5, 1.5, 0.6), (0.0, 0.3, 1.0))
    ]  # fmt: skip
    return torch.stack(members), y, x


def least_loss(columns, y, level):
    """Least mean pinball loss of a convex combination of columns `[P, N]`, as a linear program."""
    p, n = columns.shape
    cost = np.concatenate([np.zeros(p), np.full(n, level), np.full(n, 1 - level)]) / n
    fits = np.hstack([columns.T, np.eye(n), -np.eye(n)])
    simplex = np.concatenate([np.ones(p), np.zeros(2 * n)])[None]
    return linprog(cost, A_eq=np.vstack([fits, simplex]), b_eq=np.append(y, 1.0), bounds=(0, None)).fun


@pytest.mark.parametrize("kind", ["medium", "fine"])
def test_fits_come_near_the_least_loss_of_a_linear_program(kind):
    outputs, y, _ = drawn()
    fitted = fit_quantile_weights(outputs, y, LEVELS, kind=kind, crossing=0.0, decay=0.0, steps=600, rate=0.1)
    columns = [outputs[:, :, q] if kind == "medium" else outputs.transpose(1, 2).reshape(9, -1) for q in range(3)]
    best = np.mean([least_loss(columns[q].numpy(), y.numpy(), LEVELS[q].item()) for q in range(3)])
    assert best - 1e-9 <= fitted.loss <= best * 1.002
    assert fitted.start > best * 1.05


def test_coarse_weights_are_best_among_a_grid():
    outputs, y, _ = drawn()
    fitted = fit_quantile_weights(outputs, y, LEVELS, kind="coarse", decay=0.0, steps=200)
    grid = [torch.tensor([a, b, 20 - a - b]) / 20 for a in range(21) for b in range(21 - a)]
    losses = [pinball(mean_quantiles(outputs, w), y, LEVELS).mean().item() for w in grid]
    assert min(losses) * 0.98 < fitted.loss < min(losses) * 1.001
    torch.testing.assert_close(fitted.weights(), grid[int(np.argmin(losses))].to(torch.float64), atol=0.06, rtol=0)
    torch.testing.assert_close(fitted(outputs), mean_quantiles(outputs, fitted.weights()))


@pytest.mark.parametrize(("kind", "shape"), [("coarse", [3]), ("medium", [3, 3]), ("fine", [3, 3, 3])])
def test_weights_lie_on_the_simplex_and_mix_as_they_say(kind, shape):
    outputs, y, _ = drawn(60)
    fitted = fit_quantile_weights(outputs, y, LEVELS, kind=kind, steps=20)
    weights = fitted.weights()
    assert list(weights.shape) == shape
    assert bool((weights >= 0).all())
    over = (-2, -1) if kind == "fine" else (0,)
    torch.testing.assert_close(weights.sum(over), torch.ones(shape[-1:] if len(shape) > 1 else [], dtype=torch.float64))
    for n, q in ((0, 0), (5, 2)):
        mixed = (
            weights[q] * outputs[:, n]
            if kind == "fine"
            else weights.reshape(3, -1)[:, q * (kind == "medium")] * outputs[:, n, q]
        )
        assert fitted(outputs)[n, q].item() == pytest.approx(mixed.sum().item(), rel=1e-12)


def test_no_steps_are_equal_weights():
    outputs, y, _ = drawn(30)
    for kind in ("coarse", "medium"):
        fitted = fit_quantile_weights(outputs, y, LEVELS, kind=kind, steps=0)
        torch.testing.assert_close(fitted(outputs), mean_quantiles(outputs))
        assert fitted.loss == fitted.start


@pytest.mark.parametrize("kind", ["coarse", "medium", "fine"])
def test_missing_members_lose_their_weight_to_those_that_are_there(kind):
    outputs, y, _ = drawn(80)
    fitted = fit_quantile_weights(outputs, y, LEVELS, kind=kind, steps=30)
    gapped, weights = outputs.clone(), fitted.weights()
    gapped[0, 4], gapped[:, 5], gapped[1, 6, 2] = NAN, NAN, NAN
    pooled = fitted(gapped)
    assert pooled[5].isnan().all()
    for n, q in ((4, 1), (6, 2), (6, 0)):
        there = ~gapped[:, n].isnan()
        table = weights[q] if kind == "fine" else weights.reshape(3, -1) * torch.eye(3)[q]
        share = table.masked_fill(~there, 0.0)
        wanted = (share * gapped[:, n].nan_to_num()).sum() / share.sum()
        assert pooled[n, q].item() == pytest.approx(wanted.item(), rel=1e-12)
    kept = [n for n in range(80) if n not in (4, 5, 6)]
    torch.testing.assert_close(pooled[kept], fitted(outputs)[kept])


def test_the_fit_reads_only_what_is_there():
    outputs, y, _ = drawn(120)
    gapped = torch.cat([outputs, torch.full_like(outputs[:, :40], NAN), outputs[:, :40]], 1)
    observed = torch.cat([y, y[:40], torch.full((40,), NAN, dtype=torch.float64)])
    pairs = ((gapped, observed), (outputs, y))
    with_gaps, without = (fit_quantile_weights(o, t, LEVELS, crossing=0.0, steps=50) for o, t in pairs)
    torch.testing.assert_close(with_gaps.weights(), without.weights())
    assert with_gaps.loss == pytest.approx(without.loss)


def test_one_hot_features_are_a_fit_for_each_group():
    outputs, y, _ = drawn(400)
    group = torch.arange(400) % 2
    outputs = torch.where(group[:, None] == 0, outputs, outputs.flip(0))
    features = torch.nn.functional.one_hot(group).to(torch.float64)
    fitted = fit_quantile_weights(outputs, y, LEVELS, kind="coarse", features=features, decay=0.0, steps=200)
    apart = [fit_quantile_weights(outputs[:, group == g], y[group == g], LEVELS, kind="coarse", decay=0.0, steps=200)
             for g in (0, 1)]  # fmt: skip
    for g in (0, 1):
        torch.testing.assert_close(fitted.weights(features[g : g + 1])[0], apart[g].weights(), atol=0.02, rtol=0)
    assert fitted.loss == pytest.approx((apart[0].loss + apart[1].loss) / 2, rel=1e-3)
    everywhere = fit_quantile_weights(outputs, y, LEVELS, kind="coarse", decay=0.0)
    assert fitted.loss < everywhere.loss * 0.99


def test_decay_holds_weights_near_the_start():
    outputs, y, _ = drawn()
    free, held = (fit_quantile_weights(outputs, y, LEVELS, decay=d).weights() for d in (0.0, 10.0))
    equal = torch.full_like(held, 1 / 3)
    assert (held - equal).abs().max() < 0.03 < 0.2 < (free - equal).abs().max()


def test_the_penalty_keeps_levels_apart():
    generator = torch.Generator().manual_seed(1)
    y = torch.randn(150, generator=generator, dtype=torch.float64)
    centres = torch.tensor([-0.5, 0.0, 0.5])[:, None] + torch.randn(3, 150, generator=generator, dtype=torch.float64)
    outputs = centres[:, :, None] + torch.tensor([-0.1, 0.0, 0.1])
    free, held = (fit_quantile_weights(outputs, y, LEVELS, crossing=c, margin=0.1, decay=0.0) for c in (0.0, 10.0))
    assert crossing_share(held(outputs)) < 0.05 < 0.15 < crossing_share(free(outputs))
    assert free.loss < held.loss < held.start


def test_local_weights_use_the_features():
    """Noise that grows with x: no weights that are the same everywhere serve quiet and loud rows."""
    generator = torch.Generator().manual_seed(2)
    x = torch.rand(3000, 1, generator=generator, dtype=torch.float64)
    y = (0.1 + 2 * x[:, 0]) * torch.randn(3000, generator=generator, dtype=torch.float64)
    outputs = torch.stack([width * NORMAL.icdf(LEVELS).expand(3000, 3) for width in (0.1, 2.1)])
    fit, later = slice(0, 1500), slice(1500, None)
    options = {"hidden": (16,), "batch": 256, "steps": 400, "rate": 0.02, "seed": 3}
    near = fit_quantile_weights(outputs[:, fit], y[fit], LEVELS, kind="coarse", features=x[fit], **options)
    far = fit_quantile_weights(outputs[:, fit], y[fit], LEVELS, kind="coarse")
    local, everywhere = near(outputs[:, later], x[later]), far(outputs[:, later])
    truth = (0.1 + 2 * x[later]) * NORMAL.icdf(LEVELS)
    losses = [pinball(q, y[later], LEVELS).mean().item() for q in (truth, local, everywhere)]
    assert losses[0] < losses[1] < losses[0] * 1.03 < losses[2]
    again = QuantileWeights(**json.loads(json.dumps(dataclasses.asdict(near))))
    assert again == near
    again = fit_quantile_weights(outputs[:, fit], y[fit], LEVELS, kind="coarse", features=x[fit], **options)
    assert torch.equal(again.weights(x[:5]), near.weights(x[:5]))


def test_a_fit_leaves_inputs_and_the_global_generator_untouched():
    outputs, y, _ = drawn(20)
    before, state = outputs.clone(), torch.random.get_rng_state()
    with torch.no_grad():
        fit_quantile_weights(outputs, y, LEVELS, steps=2, batch=5)
    assert torch.equal(outputs, before)
    assert torch.equal(torch.random.get_rng_state(), state)


def test_refusals():
    outputs, y, x = drawn(20)
    with pytest.raises(ValueError, match=r"kind must be one of \['coarse', 'medium', 'fine'\]"):
        fit_quantile_weights(outputs, y, LEVELS, kind="rough")
    with pytest.raises(ValueError, match="not 'rough'"):
        QuantileWeights("rough", 1, (0.5,), (), 0.0, 0.0)
    for levels in (LEVELS.flip(0), 2 * LEVELS):
        with pytest.raises(ValueError, match=r"levels must increase inside \(0, 1\)"):
            fit_quantile_weights(outputs, y, levels)
    for wrong in ({"crossing": -1.0}, {"margin": -0.1}, {"decay": -1.0}, {"steps": -1}, {"batch": 0}):
        with pytest.raises(ValueError, match="are 0 or more, batch 1 or more"):
            fit_quantile_weights(outputs, y, LEVELS, **wrong)
    with pytest.raises(ValueError, match="hidden layers need features"):
        fit_quantile_weights(outputs, y, LEVELS, hidden=(4,))
    with pytest.raises(ValueError, match=r"must be \[3, N, ..., 2\]"):
        fit_quantile_weights(outputs, y, LEVELS[:2])
    with pytest.raises(ValueError, match="do not fit"):
        fit_quantile_weights(outputs, y[1:], LEVELS)
    with pytest.raises(ValueError, match="no cell has a forecast"):
        fit_quantile_weights(outputs, torch.full_like(y, NAN), LEVELS)
    with pytest.raises(ValueError, match=r"features must be finite and \[N, D\]"):
        fit_quantile_weights(outputs, y, LEVELS, features=x)
    with pytest.raises(TypeError, match="floating point"):
        fit_quantile_weights(outputs.long(), y, LEVELS)
    local = fit_quantile_weights(outputs, y, LEVELS, features=x[:, None], steps=1)
    with pytest.raises(ValueError, match=r"\[N, 1\] for these rows, not None"):
        local(outputs)
