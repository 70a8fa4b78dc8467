"""Temperatures of several labels: planted ones, the two-class temperature, gaps, and what is refused."""

import pytest
import torch
from torch.nn.functional import binary_cross_entropy_with_logits as loss

from pluria.pool import LabelTemperatures, fit_label_temperatures, fit_temperature, mean_bernoulli


def planted(temperatures, n=20_000, seed=0):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(n, len(temperatures), generator=generator).double() * 2
    return logits * torch.tensor(temperatures), torch.bernoulli(logits.sigmoid(), generator=generator).long()


def test_planted_temperatures_are_found():
    logits, y = planted((3.0, 0.5))
    each = fit_label_temperatures(logits, y, each=True)
    assert each.values == pytest.approx((3.0, 0.5), rel=0.05)
    one = fit_label_temperatures(logits, y)
    assert loss(each(logits), y.double()) < loss(one(logits), y.double()) < loss(logits, y.double())


def test_it_is_the_temperature_of_two_classes():
    logits, y = planted((3.0,), n=500)
    pairs = torch.stack([(-logits[:, 0]).sigmoid().log(), logits[:, 0].sigmoid().log()], dim=-1)
    assert fit_label_temperatures(logits, y).values[0] == pytest.approx(fit_temperature(pairs, y[:, 0]).value, rel=1e-8)


def test_dense_labels_with_gaps_behind_a_pool():
    logits, y = planted((3.0, 0.5), n=600)
    members = torch.stack([logits, logits * 1.5]).view(2, 100, 6, 2)
    marked = y.masked_fill(torch.arange(1200).view(600, 2) % 5 == 0, -100)
    pooled = mean_bernoulli(members)
    fitted = fit_label_temperatures(pooled, marked.view(100, 6, 2), each=True)
    for label in range(2):
        kept = marked[:, label] >= 0
        flat = pooled.view(600, 2)[kept, label]
        assert fitted.values[label] == fit_label_temperatures(flat[:, None], marked[kept, label][:, None]).values[0]
    assert fitted(pooled.float()).dtype is torch.float32
    assert fitted(pooled).shape == (100, 6, 2)


def test_truths_and_certain_answers():
    logits, y = planted((1.0,), n=400)
    assert fit_label_temperatures(logits, y.bool()) == fit_label_temperatures(logits, y)
    sure = logits.masked_fill(y == 1, torch.inf)
    assert fit_label_temperatures(sure, y).values[0] > 0
    with pytest.raises(ValueError, match="probability zero"):
        fit_label_temperatures(sure, 1 - y)


def test_what_does_not_fit_is_refused():
    logits, y = planted((1.0, 1.0), n=40)
    for call, said in (
        (lambda: fit_label_temperatures(logits, y[:, :1]), "shape of the logits"),
        (lambda: fit_label_temperatures(logits, y + 1), r"0\.\.1"),
        (lambda: fit_label_temperatures(logits, y.double()), "integer type"),
        (lambda: fit_label_temperatures(logits * torch.nan, y), "NaN"),
        (lambda: fit_label_temperatures(logits, torch.tensor([0, -100]).expand(40, 2), each=True), "no row"),
        (lambda: LabelTemperatures((1.0, 1.0), (False, False))(logits[:, :1]), "fitted on 2 classes"),
        (lambda: LabelTemperatures((-1.0,), (False,)), "positive"),
        (lambda: LabelTemperatures((), ()), "or more"),
    ):
        with pytest.raises(ValueError, match=said):
            call()
