"""Bootstrap: the normal limit, pairing, and the same seed gives the same interval."""

import pytest
import torch

from pluria.score import Interval, bootstrap, bootstrap_mean, paired_bootstrap


def drawn(n=400, seed=0):
    return torch.randn(n, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_the_interval_has_the_width_of_the_normal_limit():
    values = drawn()
    interval = bootstrap_mean(values, seed=1)
    half = 1.96 * values.std().item() / 20
    assert interval.estimate == pytest.approx(values.mean().item())
    assert interval.high - interval.estimate == pytest.approx(half, rel=0.15)
    assert interval.estimate - interval.low == pytest.approx(half, rel=0.15)
    narrower = bootstrap_mean(values, seed=1, level=0.5)
    assert narrower.high - narrower.low == pytest.approx(2 * half * 0.6745 / 1.96, rel=0.15)


def test_it_covers_the_truth_about_as_often_as_it_says():
    covered = sum(
        not bootstrap_mean(drawn(100, seed), seed=seed, draws=300, level=0.8).excludes(0.0) for seed in range(200)
    )
    assert 140 <= covered <= 180


def test_pairing_finds_a_small_difference_that_the_spread_of_rows_hides():
    hard = 10 * drawn()
    first, second = hard + 0.1 + 0.1 * drawn(seed=1), hard
    paired = paired_bootstrap(first, second, seed=0)
    assert paired.estimate == pytest.approx((first - second).mean().item())
    assert paired.excludes(0.0)
    assert not paired.excludes(0.1)
    assert bootstrap_mean(first, seed=0).low < bootstrap_mean(second, seed=0).estimate
    mirrored = paired_bootstrap(second, first, seed=0)
    assert (mirrored.low, mirrored.high) == pytest.approx((-paired.high, -paired.low), abs=1e-12)


def test_the_seed_decides_and_the_global_generator_is_untouched():
    values = drawn()
    before = torch.get_rng_state()
    assert bootstrap_mean(values, seed=3) == bootstrap_mean(values, seed=3)
    assert bootstrap_mean(values, seed=3) != bootstrap_mean(values, seed=4)
    assert torch.equal(torch.get_rng_state(), before)


def test_the_size_of_the_chunks_changes_nothing(monkeypatch):
    values = drawn()
    whole = bootstrap_mean(values, seed=3, draws=50)
    monkeypatch.setattr(bootstrap, "_INDICES_AT_ONCE", 7 * 400)
    assert bootstrap_mean(values, seed=3, draws=50) == whole
    monkeypatch.setattr(bootstrap, "_INDICES_AT_ONCE", 1)
    assert bootstrap_mean(values, seed=3, draws=50) == whole


def test_an_interval_excludes_what_lies_outside():
    interval = Interval(0.5, 0.0, 1.0, 0.95)
    assert [interval.excludes(v) for v in (-0.1, 0.0, 1.0, 1.1)] == [True, False, False, True]


def test_what_is_refused():
    values = drawn()
    with pytest.raises(ValueError, match=r"\[N\]"):
        bootstrap_mean(values[:0], seed=0)
    with pytest.raises(ValueError, match="finite"):
        bootstrap_mean(values.log(), seed=0)
    with pytest.raises(ValueError, match="draws"):
        bootstrap_mean(values, seed=0, draws=0)
    with pytest.raises(ValueError, match="level"):
        bootstrap_mean(values, seed=0, level=1.0)
    with pytest.raises(ValueError, match="one shape"):
        paired_bootstrap(values, values[:3], seed=0)
