"""Bootstrap of figures that are no sums, pairing of them, and rows that are drawn in clusters."""

import pytest
import torch

from pluria.score import (
    auroc,
    bootstrap_figure,
    bootstrap_mean,
    deep_ensemble_equivalent,
    ece,
    murphy_brier,
    paired_bootstrap,
    paired_bootstrap_figure,
)


def drawn(n=200, seed=0):
    return torch.randn(n, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def classes(n=200, scale=1.0, seed=0):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(n, 3, generator=generator, dtype=torch.float64)
    y = torch.multinomial(logits.softmax(-1), 1, generator=generator)[:, 0]
    return (scale * logits).log_softmax(-1), y


def ends(interval):
    return interval.estimate, interval.low, interval.high


@pytest.mark.parametrize("clusters", [None, torch.arange(200) // 7])
def test_of_a_mean_it_is_the_bootstrap_of_the_mean(clusters):
    values = drawn()
    one = bootstrap_figure(torch.mean, values, seed=3, draws=200, clusters=clusters)
    assert ends(one) == pytest.approx(ends(bootstrap_mean(values, seed=3, draws=200, clusters=clusters)), abs=1e-12)
    pair = paired_bootstrap_figure(torch.mean, values, values**2, seed=3, draws=200, clusters=clusters)
    wanted = paired_bootstrap(values, values**2, seed=3, draws=200, clusters=clusters)
    assert ends(pair) == pytest.approx(ends(wanted), abs=1e-12)


def test_it_equals_the_slow_loop():
    log_probs, y = classes()
    generator, found = torch.Generator().manual_seed(5), []
    for _ in range(50):
        index = torch.randint(200, (200,), generator=generator)
        found.append(ece(log_probs[index], y[index]))
    low, high = (
        torch.tensor(found, dtype=torch.float64).quantile(torch.tensor([0.05, 0.95], dtype=torch.float64)).tolist()
    )
    interval = bootstrap_figure(ece, log_probs, y, seed=5, draws=50, level=0.9)
    assert ends(interval) == pytest.approx((ece(log_probs, y), low, high), abs=1e-12)
    mirrored = bootstrap_figure(ece, log_probs, y, seed=5, draws=50, level=0.9, kind="basic")
    centre = 2 * ece(log_probs, y)
    assert (mirrored.low, mirrored.high) == pytest.approx((centre - high, centre - low), abs=1e-12)


def test_pairing_finds_what_two_intervals_do_not():
    log_probs, y = classes(600)
    colder = (1.3 * log_probs).log_softmax(-1)

    def miscalibration(p, t):
        return murphy_brier(p, t).reliability

    pair = paired_bootstrap_figure(miscalibration, colder, log_probs, y, seed=0, draws=300)
    own = [bootstrap_figure(miscalibration, p, y, seed=0, draws=300) for p in (colder, log_probs)]
    assert pair.estimate == pytest.approx(own[0].estimate - own[1].estimate, abs=1e-12)
    assert pair.high - pair.low < 0.9 * sum(i.high - i.low for i in own)


def test_members_go_in_as_row_numbers():
    outputs, y = torch.stack([classes(seed=s)[0] for s in range(3)]), classes()[1]
    by_number = bootstrap_figure(
        lambda i: ece(outputs[:, i].mean(0).log_softmax(-1), y[i]), torch.arange(200), seed=0, draws=20
    )
    by_rows = bootstrap_figure(ece, outputs.mean(0).log_softmax(-1), y, seed=0, draws=20)
    assert by_number == by_rows


def test_an_equivalent_size_has_an_interval():
    sizes = torch.stack([1 / (k + 1) + 0.2 * drawn(seed=k).abs() for k in range(4)], 1)
    own = sizes[:, 1:3].mean(1)

    def size(curve, value):
        return deep_ensemble_equivalent(curve.mean(0).tolist(), float(value.mean())).size

    interval = bootstrap_figure(size, sizes, own, seed=0, draws=200)
    assert 2 < interval.low < interval.estimate < interval.high < 3


def test_clusters_widen_the_interval_where_rows_repeat_each_other():
    values, clusters = drawn(50).repeat_interleave(8), torch.arange(50).repeat_interleave(8)
    naive, honest = (bootstrap_mean(values, seed=1, clusters=c) for c in (None, clusters))
    plain = bootstrap_mean(drawn(50), seed=1)
    assert ends(honest) == pytest.approx(ends(plain), abs=1e-12)
    assert honest.high - honest.low > 2 * (naive.high - naive.low)


def test_clusters_of_several_sizes_by_a_slow_loop():
    values, clusters = drawn(10), torch.tensor([7, 7, 7, 2, 2, 9, 9, 9, 9, 4])
    names = [2, 4, 7, 9]
    generator, found = torch.Generator().manual_seed(0), []
    for _ in range(40):
        taken = torch.cat([values[clusters == names[g]] for g in torch.randint(4, (4,), generator=generator).tolist()])
        found.append(taken.mean())
    low, high = torch.stack(found).quantile(torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
    interval = bootstrap_mean(values, seed=0, draws=40, clusters=clusters)
    assert (interval.low, interval.high) == pytest.approx((low, high), abs=1e-12)


def test_one_row_each_is_no_clustering():
    values, order = drawn(), torch.randperm(200, generator=torch.Generator().manual_seed(0)).sort().values
    assert ends(bootstrap_mean(values, seed=0, clusters=order)) == pytest.approx(ends(bootstrap_mean(values, seed=0)))


def test_what_is_refused():
    values = drawn()
    with pytest.raises(ValueError, match="same N > 0"):
        bootstrap_figure(torch.mean, seed=0)
    with pytest.raises(ValueError, match="same N > 0"):
        bootstrap_figure(torch.mean, values, values[:3], seed=0)
    with pytest.raises(ValueError, match="kind"):
        bootstrap_figure(torch.mean, values, seed=0, kind="bca")
    with pytest.raises(ValueError, match="draws"):
        bootstrap_figure(torch.mean, values, seed=0, draws=0)
    with pytest.raises(ValueError, match="on all rows"):
        bootstrap_figure(torch.mean, values.log(), seed=0)
    for clusters in (torch.arange(3), values):
        with pytest.raises(ValueError, match="integers"):
            bootstrap_mean(values, seed=0, clusters=clusters)
    rare = torch.arange(200) == 0
    with pytest.raises(ValueError, match=r"draw \d+: detection needs"):
        bootstrap_figure(auroc, values, rare, seed=0)
