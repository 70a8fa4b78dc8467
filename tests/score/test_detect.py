"""Detection and selective prediction: scikit-learn, brute force over thresholds and orders, hand-worked curves."""

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score, roc_curve

from pluria.score import aurc, auroc, entropy, fpr_at, max_probability, risk_coverage


@st.composite
def two_kinds(draw):
    n = draw(st.integers(2, 40))
    scores = torch.tensor(draw(st.lists(st.integers(0, 6), min_size=n, max_size=n)), dtype=torch.float64) / 6
    positive = torch.tensor([True, False, *draw(st.lists(st.booleans(), min_size=n - 2, max_size=n - 2))])
    return scores, positive


@settings(max_examples=60, deadline=None)
@given(two_kinds())
def test_auroc_equals_scikit_learn_with_ties(case):
    scores, positive = case
    assert auroc(scores, positive) == pytest.approx(roc_auc_score(positive.numpy(), scores.numpy()), abs=1e-12)
    assert auroc(-scores, positive) == pytest.approx(1 - auroc(scores, positive), abs=1e-12)


@settings(max_examples=60, deadline=None)
@given(two_kinds(), st.sampled_from([0.5, 0.8, 0.95, 1.0]))
def test_fpr_equals_the_search_over_thresholds(case, tpr):
    scores, positive = case
    fpr, reached, _ = roc_curve(positive.numpy(), scores.numpy(), drop_intermediate=False)
    assert fpr_at(scores, positive, tpr=tpr) == pytest.approx(fpr[reached >= tpr - 1e-12].min(), abs=1e-12)


@pytest.mark.parametrize(("n", "tpr", "needed"), [(20, 0.95, 19), (100, 0.55, 55), (100, 0.07, 7), (3, 0.5, 2)])
def test_fpr_asks_for_the_least_number_of_positives_however_the_product_rounds(n, tpr, needed):
    # Positives score 0..n-1; the one negative lies between the lowest positive needed and the one below it.
    scores = torch.cat([torch.arange(float(n)), torch.tensor([n - needed - 0.5])])
    assert fpr_at(scores, torch.arange(n + 1) < n, tpr=tpr) == 0.0
    assert fpr_at(scores + torch.where(torch.arange(n + 1) < n, 0.0, 1.0), torch.arange(n + 1) < n, tpr=tpr) == 1.0


def test_separated_kinds():
    scores, positive = torch.tensor([0.1, 0.2, 0.8, 0.9]), torch.tensor([False, False, True, True])
    assert (auroc(scores, positive), fpr_at(scores, positive)) == (1.0, 0.0)
    assert (auroc(-scores, positive), fpr_at(-scores, positive)) == (0.0, 1.0)


def test_hand_worked_curve():
    curve = risk_coverage(torch.tensor([0.3, 0.1, 0.4, 0.2]), torch.tensor([1.0, 0.0, 0.0, 0.0]))
    assert curve.coverage.tolist() == [0.25, 0.5, 0.75, 1.0]
    assert curve.risk.tolist() == pytest.approx([0, 0, 1 / 3, 1 / 4])
    assert curve.aurc == pytest.approx((1 / 3 + 1 / 4) / 4)
    assert curve.augrc == pytest.approx((1 / 4 + 1 / 4) / 4)
    assert curve.excess == pytest.approx(curve.aurc - (0.25 + 0.75 * math.log(0.75)))
    assert [curve.coverage_at(r) for r in (0.0, 0.25, 0.3, 0.4)] == [0.5, 1.0, 1.0, 1.0]
    assert [curve.risk_at(c) for c in (0.25, 0.6, 1.0)] == pytest.approx([0, 1 / 3, 1 / 4])


def test_coverage_is_zero_where_no_row_is_safe_enough():
    curve = risk_coverage(torch.tensor([0.1, 0.2]), torch.tensor([1.0, 0.0]))
    assert curve.coverage_at(0.4) == 0.0


def test_ties_count_as_the_mean_over_all_orders():
    uncertainty, loss = torch.tensor([0.1, 0.2, 0.2, 0.2, 0.5]), torch.tensor([0.0, 1.0, 0.0, 3.0, 1.0])
    areas = []
    for order in itertools.permutations(range(1, 4)):
        ordered = loss[[0, *order, 4]].double()
        areas.append((ordered.cumsum(0) / torch.arange(1, 6)).mean().item())
    assert aurc(uncertainty, loss) == pytest.approx(sum(areas) / len(areas), abs=1e-12)
    shuffled = torch.tensor([3, 0, 4, 2, 1])
    assert aurc(uncertainty[shuffled], loss[shuffled]) == pytest.approx(aurc(uncertainty, loss), abs=1e-15)
    constant = risk_coverage(torch.zeros(5), loss)
    assert constant.risk.tolist() == pytest.approx([1.0] * 5)


def test_a_perfect_order_leaves_no_excess():
    loss = (torch.arange(5000) >= 4000).double()
    best, worst = (risk_coverage(u, loss).excess for u in (torch.arange(5000.0), -torch.arange(5000.0)))
    assert best == pytest.approx(0.0, abs=1e-3)
    assert worst > 0.3
    assert risk_coverage(torch.arange(3.0), torch.ones(3)).excess == pytest.approx(0.0, abs=1e-12)


def test_uncertainties_of_rows():
    rows = torch.tensor([[0.5, 0.5, 0.0], [1.0, 0.0, 0.0], [0.7, 0.2, 0.1]]).double().log()
    wanted = -(0.7 * math.log(0.7) + 0.2 * math.log(0.2) + 0.1 * math.log(0.1))
    assert entropy(rows).tolist() == pytest.approx([math.log(2), 0.0, wanted])
    assert max_probability(rows).tolist() == pytest.approx([0.5, 0.0, 0.3])
    # Rows that float32 probabilities could not tell apart keep their order.
    sure = torch.tensor([[-1e-12, -28.0], [-1e-13, -30.0]], dtype=torch.float64)
    assert max_probability(sure)[0] > max_probability(sure)[1] > 0


def test_what_is_refused():
    scores, positive = torch.tensor([0.1, 0.2]), torch.tensor([True, False])
    for figure in (auroc, fpr_at):
        with pytest.raises(ValueError, match="bool mask"):
            figure(scores, positive.long())
        with pytest.raises(ValueError, match="missing"):
            figure(scores, torch.tensor([True, True]))
        with pytest.raises(ValueError, match="NaN"):
            figure(torch.tensor([0.1, torch.nan]), positive)
        with pytest.raises(ValueError, match=r"\[N\]"):
            figure(scores[:1], positive)
    with pytest.raises(ValueError, match="tpr"):
        fpr_at(scores, positive, tpr=0.0)
    with pytest.raises(ValueError, match="coverage"):
        risk_coverage(scores, scores).risk_at(0.0)
    with pytest.raises(ValueError, match="NaN"):
        aurc(scores, torch.tensor([torch.nan, 0.0]))
    with pytest.raises(ValueError, match="N > 0"):
        aurc(scores[:0], scores[:0])
