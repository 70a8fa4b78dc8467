"""Cross-validated calibrated NLL: a row's fit has not seen it, temperatures stop to matter, a slow form agrees."""

import pytest
import torch

from pluria.pool import fit_temperature
from pluria.score import calibrated_nll, nll


def drawn(n=400, scale=1.5, seed=0):
    generator = torch.Generator().manual_seed(seed)
    logits = scale * torch.randn(n, 4, generator=generator, dtype=torch.float64)
    y = torch.multinomial(logits.softmax(-1), 1, generator=generator)[:, 0]
    return logits.log_softmax(-1), y


def test_too_sure_and_too_unsure_come_to_the_same():
    rows, y = drawn()
    first, second = (calibrated_nll((rows * t).log_softmax(-1), y, fit=fit_temperature) for t in (0.3, 5.0))
    torch.testing.assert_close(first, second, rtol=1e-6, atol=1e-8)
    assert nll((rows * 5).log_softmax(-1), y).mean() > 1.5 * first.mean()
    assert first.mean().item() == pytest.approx(nll(rows, y).mean().item(), abs=0.02)


def test_equals_the_slow_form():
    rows, y = drawn(60)
    generator, total = torch.Generator().manual_seed(3), [0.0] * 60
    for _ in range(2):
        part = (torch.randperm(60, generator=generator) % 3).tolist()
        for i in range(60):
            others = [j for j in range(60) if part[j] != part[i]]
            total[i] += nll(fit_temperature(rows[others], y[others])(rows[i : i + 1]), y[i : i + 1]).item() / 2
    found = calibrated_nll(rows, y, fit=fit_temperature, splits=3, repeats=2, seed=3)
    torch.testing.assert_close(found, torch.tensor(total, dtype=torch.float64), rtol=1e-9, atol=1e-9)


def test_no_fit_sees_the_rows_it_judges_nor_their_clusters():
    rows, y = drawn(90)
    clusters = torch.arange(90) // 3
    groups = [set(rows[3 * g : 3 * g + 3, 0].tolist()) for g in range(30)]
    seen = []

    def fit(log_probs, targets):
        seen.append([log_probs[:, 0].tolist()])
        return lambda new: seen[-1].append(new[:, 0].tolist()) or new

    calibrated_nll(rows, y, fit=fit, clusters=clusters)
    assert len(seen) == 10
    for known, judged in seen:
        assert sorted(known + judged) == sorted(rows[:, 0].tolist())
        assert all(len(group & set(known)) in (0, 3) for group in groups)
        assert len(known) == len(judged) == 45


def test_the_seed_decides_and_the_global_generator_is_untouched():
    rows, y = drawn(50)
    before = torch.get_rng_state()
    one, same, other = (calibrated_nll(rows, y, fit=fit_temperature, seed=s) for s in (0, 0, 1))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    assert torch.equal(torch.get_rng_state(), before)


def test_what_is_refused():
    rows, y = drawn(20)
    with pytest.raises(ValueError, match="splits"):
        calibrated_nll(rows, y, fit=fit_temperature, splits=1)
    with pytest.raises(ValueError, match="splits"):
        calibrated_nll(rows, y, fit=fit_temperature, clusters=torch.zeros(20, dtype=torch.long))
    with pytest.raises(ValueError, match="repeats"):
        calibrated_nll(rows, y, fit=fit_temperature, repeats=0)
    with pytest.raises(ValueError, match="integers"):
        calibrated_nll(rows, y, fit=fit_temperature, clusters=torch.zeros(20))
    with pytest.raises(ValueError, match="flatten"):
        calibrated_nll(rows, y.clone().fill_(-100), fit=fit_temperature)
    with pytest.raises(ValueError, match="not normalised"):
        calibrated_nll(rows + 1, y, fit=fit_temperature)
