"""Joint score: hand-worked experts, a slow loop over points, the control's closed form, and what cannot move it."""

import math
import sys

import pytest
import torch

from pluria.score import Points, all_epistemic, draw_points, joint, marginal, nll, paired_bootstrap

CLOSE = {"rtol": 1e-12, "atol": 1e-12}
EVERY = [joint, marginal, all_epistemic]
# Example 0 three times with example 1 once, and examples 2 and 1 twice each.
POINTS = Points(torch.tensor([[0, 1], [2, 1]]), torch.tensor([[3, 1], [2, 2]]))


def members(k=4, n=30, c=3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(k, n, c, generator=generator, dtype=torch.float64)
    return logits, torch.randint(c, (n,), generator=generator)


def labels_of(logits, y):
    """Log-probabilities of the targets, `[K, N]`."""
    return torch.stack([-nll(member.log_softmax(-1), y) for member in logits])


def slow_joint(logits, y, points, shares):
    """The formula as it stands, point by point, with plain products."""
    probs = labels_of(logits, y).exp().tolist()
    values = []
    for examples, times in zip(points.examples.tolist(), points.times.tolist(), strict=True):
        total = 0.0
        for share, member in zip(shares, probs, strict=True):
            product = share
            for example, count in zip(examples, times, strict=True):
                for _ in range(count):
                    product *= member[example]
            total += product
        values.append(-math.log(total) / sum(times))
    return torch.tensor(values, dtype=torch.float64)


@pytest.mark.parametrize("anchors", [2, 3, None])
def test_it_equals_a_loop_over_points(anchors):
    logits, y = members()
    points = draw_points(30, tau=5, anchors=anchors, draws=20)
    weights = torch.tensor([1.0, 2.0, 3.0, 2.0])
    torch.testing.assert_close(joint(logits, y, points), slow_joint(logits, y, points, [0.25] * 4), **CLOSE)
    expected = slow_joint(logits, y, points, [0.125, 0.25, 0.375, 0.25])
    torch.testing.assert_close(joint(logits, y, points, weights=weights), expected, **CLOSE)
    assert not torch.allclose(joint(logits, y, points), expected)


def test_two_experts_by_hand():
    """One expert is sure of class 0, the other of class 1: labels that follow one of them cost log 2 in all."""
    experts = torch.tensor([[[1.0, 0.0]] * 3, [[0.0, 1.0]] * 3]).log()
    agreeing, mixed = torch.tensor([0, 0, 0]), torch.tensor([0, 1, 0])
    three = Points(torch.tensor([[0, 1, 2]]), torch.tensor([[1, 1, 1]]))
    assert joint(experts, agreeing, three).item() == pytest.approx(math.log(2) / 3, abs=1e-15)
    assert joint(experts, mixed, three).item() == math.inf
    for y in (agreeing, mixed):
        assert marginal(experts, y, three).item() == pytest.approx(math.log(2), abs=1e-15)
        assert all_epistemic(experts, y, three).item() == pytest.approx(math.log(2), abs=1e-15)
    weights = torch.tensor([3.0, 1.0])
    assert joint(experts, agreeing, three, weights=weights).item() == pytest.approx(math.log(4 / 3) / 3, abs=1e-15)


def test_an_impossible_label_that_counts_zero_times_is_not_read():
    experts = torch.tensor([[[1.0, 0.0]] * 2]).log()
    points = Points(torch.tensor([[0, 1]]), torch.tensor([[4, 0]]))
    for score in EVERY:
        assert score(experts, torch.tensor([0, 1]), points).item() == 0.0


@pytest.mark.parametrize("copies", [1, 3])
def test_one_member_or_its_copies_give_the_mean_nll_of_the_points(copies):
    logits, y = members(k=1)
    losses = nll(logits[0].log_softmax(-1), y)
    expected = torch.stack([(3 * losses[0] + losses[1]) / 4, (losses[2] + losses[1]) / 2])
    for score in (joint, marginal):
        torch.testing.assert_close(score(logits.expand(copies, -1, -1), y, POINTS), expected, **CLOSE)


def test_the_control_counts_every_distinct_example_once():
    logits, y = members(k=1)
    losses = nll(logits[0].log_softmax(-1), y)
    expected = torch.stack([losses[0] + losses[1], losses[2] + losses[1]]) / 4
    torch.testing.assert_close(all_epistemic(logits, y, POINTS), expected, **CLOSE)
    unused = Points(torch.tensor([[0, 1]]), torch.tensor([[4, 0]]))
    assert all_epistemic(logits, y, unused).item() == pytest.approx(losses[0].item() / 4)


def test_the_control_is_what_a_model_gets_by_repeating_one_draw():
    """A member for each class, weighted by the network's probabilities, always says its class: J is the control."""
    network = torch.tensor([[[0.7, 0.2, 0.1]]], dtype=torch.float64).log()
    sure = torch.eye(3, dtype=torch.float64).log()[:, None, :]
    repeated = Points(torch.tensor([[0]]), torch.tensor([[10]]))
    for label in range(3):
        y = torch.tensor([label])
        pretended = joint(sure, y, repeated, weights=network[0, 0].exp())
        torch.testing.assert_close(all_epistemic(network, y, repeated), pretended, **CLOSE)


def test_on_different_points_the_control_is_the_marginal():
    logits, y = members()
    points = draw_points(30, tau=5, anchors=None)
    torch.testing.assert_close(all_epistemic(logits, y, points), marginal(logits, y, points), **CLOSE)
    pooled = labels_of(logits, y).logsumexp(0) - math.log(4)
    assert marginal(logits, y, points).mean().item() == pytest.approx(-pooled.mean().item())


def test_it_never_exceeds_the_mean_member_and_one_point_is_the_marginal():
    logits, y = members()
    points = draw_points(30, tau=6, anchors=3, draws=100)
    losses = -labels_of(logits, y).mean(0)
    mean_member = (losses[points.examples] * points.times).sum(1) / 6
    assert bool((joint(logits, y, points) <= mean_member + 1e-12).all())
    once = draw_points(30, tau=1, anchors=1)
    torch.testing.assert_close(joint(logits, y, once), marginal(logits, y, once), **CLOSE)


@pytest.mark.parametrize("score", EVERY)
def test_order_doubling_and_weight_zero(score):
    logits, y = members()
    weights = torch.tensor([1.0, 2.0, 1.0, 0.0])
    expected = score(logits, y, POINTS, weights=weights)
    order = torch.tensor([3, 1, 0, 2])
    torch.testing.assert_close(score(logits[order], y, POINTS, weights=weights[order]), expected, **CLOSE)
    torch.testing.assert_close(score(logits[[0, 1, 1, 2]], y, POINTS), expected, **CLOSE)
    torch.testing.assert_close(score(logits, y, POINTS, weights=7 * weights), expected, **CLOSE)
    broken = logits.clone()
    broken[3] = torch.nan
    torch.testing.assert_close(score(broken, y, POINTS, weights=weights), expected, **CLOSE)


@pytest.mark.parametrize("score", EVERY)
def test_the_temperature_acts_on_members(score):
    logits, y = members()
    cooled = (logits / 2.5).log_softmax(-1)
    torch.testing.assert_close(score(logits, y, POINTS, temperature=2.5), score(cooled, y, POINTS), **CLOSE)
    assert not torch.allclose(score(logits, y, POINTS), score(cooled, y, POINTS))


def test_logits_and_log_probabilities_of_any_float_give_the_same():
    logits, y = members()
    half = logits.to(torch.float16)
    assert joint(half, y, POINTS).dtype == torch.float64
    torch.testing.assert_close(joint(half, y, POINTS), joint(half.double().log_softmax(-1), y, POINTS), **CLOSE)


def test_the_size_of_the_chunks_changes_nothing(monkeypatch):
    logits, y = members()
    points = draw_points(30, tau=5, draws=40)
    whole = joint(logits, y, points)
    for at_once in (1, 4 * 2 * 7):
        monkeypatch.setattr(sys.modules["pluria.score.joint"], "_GATHERED_AT_ONCE", at_once)
        assert torch.equal(joint(logits, y, points), whole)


def test_many_labels_do_not_underflow():
    logits, y = members(k=2, n=1)
    points = Points(torch.tensor([[0]]), torch.tensor([[100000]]))
    best = -labels_of(logits, y).max().item()
    assert joint(logits, y, points).item() == pytest.approx(best + math.log(2) / 100000)


def test_two_methods_on_the_same_points_are_compared_in_pairs():
    """One member is right everywhere, the other nowhere: together they beat their pooled prediction in every draw."""
    logits = torch.tensor([[3.0, 0.0], [0.0, 3.0]])[:, None, :].expand(2, 200, 2)
    y, points = torch.zeros(200, dtype=torch.int64), draw_points(200, tau=4, anchors=None)
    gap = paired_bootstrap(joint(logits, y, points), marginal(logits, y, points), seed=0)
    assert gap.high < 0


@pytest.mark.parametrize("score", EVERY)
def test_what_is_refused(score):
    logits, y = members()
    with pytest.raises(TypeError, match="floating point"):
        score(logits.long(), y, POINTS)
    for outputs, targets in ((logits[0], y), (logits, y[:5]), (logits[:0], y), (logits, y[:, None])):
        with pytest.raises(ValueError, match="do not fit"):
            score(outputs, targets, POINTS)
    with pytest.raises(ValueError, match="is no class"):
        score(logits, y + 3, POINTS)
    with pytest.raises(ValueError, match="drop ignored"):
        score(logits, torch.full_like(y, -100), POINTS)
    with pytest.raises(ValueError, match="reach example 30, but there are 30 rows"):
        score(logits, y, Points(torch.tensor([[30]]), torch.tensor([[1]])))
    for temperature in (0.0, -1.0, math.nan, math.inf):
        with pytest.raises(ValueError, match="temperature"):
            score(logits, y, POINTS, temperature=temperature)


@pytest.mark.parametrize("score", EVERY)
def test_weights_and_values_that_are_refused(score):
    logits, y = members()
    for weights in (torch.ones(3), torch.ones(4, 30), torch.zeros(4)):
        with pytest.raises(ValueError, match="one for each member, with a positive sum"):
            score(logits, y, POINTS, weights=weights)
    for value in (-1.0, math.nan):
        with pytest.raises(ValueError, match="not negative"):
            score(logits, y, POINTS, weights=torch.full((4,), value))
    for value in (math.nan, math.inf):
        broken = logits.clone()
        broken[2, 5, 1] = value
        with pytest.raises(ValueError, match=r"member 2 holds NaN or \+inf at example 5"):
            score(broken, y, POINTS)


def test_a_byte_target_is_not_taken_for_ignored():
    logits, _ = members(c=160)
    y = torch.full((30,), 156)
    torch.testing.assert_close(joint(logits, y.to(torch.uint8), POINTS), joint(logits, y, POINTS), **CLOSE)
