"""Votes: hand-counted shares, split first choices, and thirty published networks."""

import math

import numpy as np
import pytest
import torch
from torch.nn.functional import one_hot

from pluria.pool import vote


def test_hand_counted_votes():
    outputs = torch.tensor([[[3.0, 1.0, 0.0]], [[0.0, 2.0, 1.0]], [[0.0, 5.0, 1.0]]])
    torch.testing.assert_close(vote(outputs).exp(), torch.tensor([[1 / 3, 2 / 3, 0.0]]))
    torch.testing.assert_close(vote(outputs, torch.tensor([3.0, 1.0, 1.0])).exp(), torch.tensor([[0.6, 0.4, 0.0]]))
    each = torch.tensor([[1.0], [0.0], [0.0]])
    assert vote(outputs, each).tolist() == [[0.0, -math.inf, -math.inf]]


def test_a_member_that_wavers_splits_its_vote():
    outputs = torch.tensor([[[2.0, 2.0, 0.0]], [[0.0, 0.0, 0.0]]], dtype=torch.float64)
    wanted = [(1 / 2 + 1 / 3) / 2, (1 / 2 + 1 / 3) / 2, 1 / 6]
    torch.testing.assert_close(vote(outputs).exp(), torch.tensor([wanted]).double())


def test_classes_that_end_level_keep_level_shares_and_the_lowest_is_taken():
    pooled = vote(torch.tensor([[[0.0, 0.0, 1.0]], [[0.0, 1.0, 0.0]]]))
    assert pooled[0, 1] == pooled[0, 2]
    assert pooled.argmax(-1).item() == 1


def test_equals_a_slow_count():
    generator = torch.Generator().manual_seed(0)
    outputs = torch.randint(0, 3, (5, 40, 3), generator=generator).double()  # many ties
    weights = torch.rand(5, generator=generator).double()
    for n, pooled in enumerate(vote(outputs, weights).exp().tolist()):
        counts = [0.0] * 3
        for row, weight in zip(outputs[:, n].tolist(), weights.tolist(), strict=True):
            first = [c for c in range(3) if row[c] == max(row)]
            for c in first:
                counts[c] += weight / len(first)
        assert pooled == pytest.approx([count / float(weights.sum()) for count in counts], abs=1e-12)


def test_what_is_not_read_and_what_is_refused():
    outputs = torch.tensor([[[1.0, 0.0]], [[torch.nan, 0.0]]])
    assert vote(outputs, torch.tensor([1.0, 0.0])).tolist() == [[0.0, -math.inf]]
    assert bool(vote(outputs).isnan().all())
    with pytest.raises(ValueError, match=r"\[K, N, ..., C\]"):
        vote(torch.zeros(2, 3))
    with pytest.raises(ValueError, match="every example"):
        vote(outputs, torch.zeros(2))
    with pytest.raises(ValueError, match="not negative"):
        vote(outputs, torch.tensor([1.0, -1.0]))


def test_thirty_published_networks_vote(real_data):
    found = np.load(real_data / "cifar10_1_predictions" / "predictions.npz")
    for name, error in (("original", 0.0300), ("v4", 0.0856), ("v6", 0.0820)):
        y, hard = (torch.from_numpy(found[f"{kind}_{name}"].astype(np.int64)) for kind in ("y", "pred"))
        pooled = vote(one_hot(hard, 10).float())
        assert (pooled.argmax(-1) != y).float().mean().item() == pytest.approx(error, abs=6e-4)
