"""KL divergence against a double loop, and what it refuses."""

import math

import pytest
import torch

from pluria.score import kl


def test_kl_is_the_double_loop():
    p, q = (torch.randn(5, 4, generator=torch.Generator().manual_seed(s)).log_softmax(-1) for s in (0, 1))
    slow = [
        sum(math.exp(a) * (a - b) for a, b in zip(r, s, strict=True))
        for r, s in zip(p.tolist(), q.tolist(), strict=True)
    ]
    assert kl(p, q).tolist() == pytest.approx(slow, abs=1e-6)
    assert torch.equal(kl(p, p), torch.zeros(5, dtype=torch.float64))


def test_a_class_without_mass_counts_nothing_and_one_that_is_missed_is_infinite():
    p, q = torch.tensor([[1.0, 0.0]]).log(), torch.tensor([[0.5, 0.5]]).log()
    assert kl(p, q).item() == pytest.approx(math.log(2))
    assert kl(q, p).item() == math.inf


def test_other_shapes_are_refused():
    with pytest.raises(ValueError, match="same shape"):
        kl(torch.zeros(1, 2), torch.zeros(2, 2))
