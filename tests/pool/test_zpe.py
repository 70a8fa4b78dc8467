"""Weights without labels: scores by hand, and prompts of which many are loud about the wrong thing."""

import math

import pytest
import torch
from scipy import stats

from pluria.pool import mean_probability, zpe


def prompts(seed, classes=20, count=40, n=400, background=400):
    """Logits of good, weak and useless prompts; the useless are near a direction that all images share."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    truth, common = normal(classes, 64), normal(64)
    strength = torch.tensor([1.0] * (count // 4) + [0.5] * (count * 7 // 20) + [0.1] * (count * 2 // 5)).double()
    text = strength[:, None, None] * truth + normal(count, classes, 64) * 0.7
    for useless in range(count * 3 // 5, count):
        text[useless, torch.randperm(classes, generator=generator)[:3]] += 2 * common
    y = torch.randint(classes, (n,), generator=generator)
    images, others = truth[y] + normal(n, 64) * 1.5 + common, normal(background, 64) * 1.5 + common
    return (images @ text.transpose(1, 2)) / 8, (others @ text.transpose(1, 2)) / 8, y


def test_hand_worked_scores():
    logits = torch.tensor([[[4.0, 0.0], [0.0, 2.0]], [[9.0, 0.0], [9.0, 0.0]]])
    background = torch.tensor([[[0.0, 1.0]], [[9.0, 0.0]]])
    # Habits: (1, 1) and (9, 0). Left: (3 -1) (-1 1), so 2; (0 0) (0 0), so 0.
    assert zpe(logits, background).tolist() == pytest.approx([1 / (1 + math.exp(-2)), 1 / (1 + math.exp(2))])
    assert zpe(logits, background, select=0.5).tolist() == [1.0, 0.0]
    assert zpe(logits, background, select=-3.0).tolist() == [0.5, 0.5]
    assert zpe(logits, background, select=7.0).tolist() == [1.0, 0.0]


def test_taking_off_habits_finds_the_good_prompts():
    raw, corrected, gains = [], [], []
    for seed in range(4):
        logits, background, y = prompts(seed)
        right = (logits.argmax(-1) == y).double().mean(1)
        raw.append(stats.spearmanr(logits.amax(-1).mean(1), right)[0])
        corrected.append(stats.spearmanr(zpe(logits, background), right)[0])
        for weights in (zpe(logits, background), zpe(logits, background, select=0.5)):
            pooled = [mean_probability(logits, w).argmax(-1) for w in (None, weights)]
            gains.append(float((pooled[1] == y).double().mean() - (pooled[0] == y).double().mean()))
    assert sum(corrected) / 4 > sum(raw) / 4 + 0.3
    assert sum(gains) / len(gains) > 0


def test_what_all_members_and_rows_share_changes_nothing():
    logits, background, _ = prompts(0)
    habit = torch.randn(40, 1, 20, generator=torch.Generator().manual_seed(1)).double() * 5
    torch.testing.assert_close(zpe(logits + habit, background + habit), zpe(logits, background))


def test_what_does_not_fit_is_refused():
    logits, background, _ = prompts(0)
    with pytest.raises(ValueError, match="same members and classes"):
        zpe(logits, background[:3])
    with pytest.raises(ValueError, match=r"\[K, rows, C\]"):
        zpe(logits, background[:, :0])
    with pytest.raises(ValueError, match="NaN or an infinite"):
        zpe(logits.masked_fill(logits > 3, torch.inf), background)
    with pytest.raises(TypeError, match="background must be floating"):
        zpe(logits, background.long())
    with pytest.raises(ValueError, match="number of MADs"):
        zpe(logits, background, select=math.nan)
