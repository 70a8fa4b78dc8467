"""Medians and trimmed means: hand-worked cases, SciPy for whole members, repeated members for weights."""

import pytest
import torch
from scipy import stats

from pluria.pool import mean, mean_probability, median, median_probability, trimmed, trimmed_probability

ALL = [median, median_probability, trimmed, trimmed_probability]


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * 3


def test_hand_worked_median():
    outputs = torch.tensor([[4.0], [1.0], [9.0], [2.0]])
    assert median(outputs).item() == 3.0
    assert median(outputs[:3]).item() == 4.0
    assert median(outputs, torch.tensor([1.0, 1.0, 3.0, 1.0])).item() == 6.5  # 1 2 4 | 9 9 9
    assert median(outputs, torch.tensor([1.0, 1.0, 4.0, 1.0])).item() == 9.0


def test_hand_worked_median_of_probabilities():
    rows = torch.tensor([[[0.7, 0.2, 0.1]], [[0.5, 0.3, 0.2]], [[0.1, 0.1, 0.8]]], dtype=torch.float64).log()
    wanted = torch.tensor([[0.5, 0.2, 0.2]]).double() / 0.9
    torch.testing.assert_close(median_probability(rows).exp(), wanted)
    # Of two members, the midpoint of their probabilities, not of their logarithms.
    torch.testing.assert_close(median_probability(rows[:2]).exp(), mean_probability(rows[:2]).exp())


def test_hand_worked_trim_cuts_through_a_member():
    outputs = torch.tensor([[0.0], [1.0], [10.0]], dtype=torch.float64)
    # A fifth of three members is 0.6: weights 0.4, 1, 0.4 are left.
    assert trimmed(outputs, trim=0.2).item() == pytest.approx((0.4 * 0 + 1 * 1 + 0.4 * 10) / 1.8)
    rows = torch.tensor([[[0.9, 0.1]], [[0.6, 0.4]], [[0.2, 0.8]]], dtype=torch.float64).log()
    ends = [(0.4 * 0.9 + 0.6 + 0.4 * 0.2) / 1.8, (0.4 * 0.1 + 0.4 + 0.4 * 0.8) / 1.8]
    wanted = torch.tensor([[ends[0] / sum(ends), ends[1] / sum(ends)]], dtype=torch.float64)
    torch.testing.assert_close(trimmed_probability(rows, trim=0.2).exp(), wanted)


@pytest.mark.parametrize("trim", [0.0, 0.1, 0.2, 0.4])
def test_whole_members_are_trimmed_as_in_scipy(trim):
    outputs = draw(10, 7, 3)
    torch.testing.assert_close(trimmed(outputs, trim=trim), torch.from_numpy(stats.trim_mean(outputs, trim, axis=0)))
    probs = torch.from_numpy(stats.trim_mean(outputs.softmax(-1), trim, axis=0))
    torch.testing.assert_close(trimmed_probability(outputs, trim=trim).exp(), probs / probs.sum(-1, keepdim=True))


def test_the_median_is_that_of_numpy():
    for members in (1, 2, 5, 8):
        outputs = draw(members, 6, 4)
        torch.testing.assert_close(median(outputs), outputs.quantile(0.5, dim=0))
        probs = outputs.softmax(-1).quantile(0.5, dim=0)
        torch.testing.assert_close(median_probability(outputs).exp(), probs / probs.sum(-1, keepdim=True))


@pytest.mark.parametrize("pool", ALL)
def test_whole_weights_are_repeated_members(pool):
    outputs, counts = draw(4, 30, 3), torch.tensor([2, 1, 3, 0])
    repeated = outputs.repeat_interleave(counts, dim=0)
    torch.testing.assert_close(pool(outputs, counts), pool(repeated), rtol=1e-12, atol=1e-12)


def test_trimming_goes_from_the_mean_to_the_median():
    outputs = draw(5, 20)
    torch.testing.assert_close(trimmed(outputs, trim=0.0), mean(outputs))
    torch.testing.assert_close(trimmed(outputs, trim=0.5 - 1e-9), median(outputs))
    assert not torch.allclose(trimmed(outputs, trim=0.3), mean(outputs), atol=1e-2)


def test_one_wild_member_moves_nothing_far():
    rows = torch.tensor([[[0.8, 0.2]]] * 4 + [[[1e-9, 1 - 1e-9]]], dtype=torch.float64).log()
    for pool in (median_probability, trimmed_probability):
        torch.testing.assert_close(pool(rows).exp(), rows[0].exp())


@pytest.mark.parametrize("pool", ALL)
def test_what_is_not_read_and_what_is_refused(pool):
    outputs = torch.cat([draw(3, 4, 2), torch.full((1, 4, 2), torch.nan)])
    weights = torch.tensor([1.0, 2.0, 1.5, 0.0])
    torch.testing.assert_close(pool(outputs, weights), pool(outputs[:3], weights[:3]))
    assert bool(pool(outputs).isnan().all())
    with pytest.raises(ValueError, match="every example"):
        pool(outputs, torch.zeros(4))
    with pytest.raises(TypeError, match="floating point"):
        pool(torch.zeros(2, 3, 4, dtype=torch.int64))


def test_shapes_and_shares_that_do_not_fit_are_refused():
    for pool in (median_probability, trimmed_probability):
        with pytest.raises(ValueError, match=r"\[K, N, ..., C\]"):
            pool(torch.zeros(2, 3))
    for trim in (-0.1, 0.5, float("nan")):
        with pytest.raises(ValueError, match="trim must lie"):
            trimmed(torch.zeros(2, 3), trim=trim)


def test_impossible_classes():
    rows = torch.tensor([[[0.0, -torch.inf]], [[0.0, -torch.inf]], [[-torch.inf, 0.0]]])
    assert median_probability(rows).exp().tolist() == [[1.0, 0.0]]
    assert trimmed_probability(rows, trim=0.4).exp().tolist() == [[1.0, 0.0]]
    each = torch.eye(3)[:, None].log()
    assert bool(median_probability(each).isnan().all())
