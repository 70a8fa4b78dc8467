"""Sums over members: blocks add up, means are the plain ones, weight zero is not read."""

from dataclasses import fields

import pytest
import torch

from pluria.score import MemberSums, member_sums

CLOSE = {"rtol": 1e-12, "atol": 1e-12}


def ensemble(k=5, n=4, c=3):
    generator = torch.Generator().manual_seed(0)
    return torch.randn(k, n, c, generator=generator, dtype=torch.float64) * 3, torch.rand(
        k, generator=generator
    ).double()


def assert_same(a, b):
    for field in fields(MemberSums):
        torch.testing.assert_close(getattr(a, field.name), getattr(b, field.name), **CLOSE)


def test_means_equal_a_loop_over_members():
    outputs, weights = ensemble()
    sums = member_sums(outputs, weights)
    shares = (weights / weights.sum()).tolist()
    probs = [member.softmax(-1) for member in outputs]
    votes = torch.zeros(4, 3, dtype=torch.float64)
    for share, p in zip(shares, probs, strict=True):
        for n in range(4):
            votes[n, int(p[n].argmax())] += share
    pairs = list(zip(shares, probs, strict=True))
    torch.testing.assert_close(sums.mean_probs, sum(w * p for w, p in pairs), **CLOSE)
    torch.testing.assert_close(sums.mean_log_probs, sum(w * p.log() for w, p in pairs), **CLOSE)
    torch.testing.assert_close(sums.mean_square, sum(w * (p * p).sum(-1) for w, p in pairs), **CLOSE)
    torch.testing.assert_close(sums.mean_entropy, sum(-w * (p * p.log()).sum(-1) for w, p in pairs), **CLOSE)
    torch.testing.assert_close(sums.vote_shares, votes, **CLOSE)
    torch.testing.assert_close(
        sums.same_member, torch.full((4,), sum(w * w for w in shares), dtype=torch.float64), **CLOSE
    )


def test_the_comparison_can_fail():
    outputs, weights = ensemble()
    with pytest.raises(AssertionError):
        assert_same(member_sums(outputs, weights), member_sums(outputs))


def test_blocks_of_members_and_picked_rows():
    outputs, weights = ensemble()
    blocks = [member_sums(outputs[s], weights[s]) for s in (slice(0, 2), slice(2, 3), slice(3, 5))]
    assert_same(blocks[0] + blocks[1] + blocks[2], member_sums(outputs, weights))
    kept = torch.tensor([True, False, True, True])
    assert_same(member_sums(outputs, weights).rows(kept), member_sums(outputs[:, kept], weights))


def test_a_member_of_weight_zero_is_not_read_and_may_differ_by_example():
    outputs, _ = ensemble(k=2)
    weights = torch.tensor([[1.0, 1.0, 0.0, 2.0], [1.0, 0.0, 3.0, 1.0]])
    broken = torch.where(weights[..., None] > 0, outputs, torch.nan)
    assert_same(member_sums(broken, weights), member_sums(outputs, weights))
    alone = member_sums(outputs[:, 3:], weights[:, 3])
    torch.testing.assert_close(member_sums(broken, weights).mean_probs[3:], alone.mean_probs, **CLOSE)


def test_what_is_refused():
    outputs, weights = ensemble()
    with pytest.raises(TypeError, match="floating point"):
        member_sums(outputs.long())
    with pytest.raises(ValueError, match="at least one member"):
        member_sums(outputs[:0])
    with pytest.raises(ValueError, match="flatten"):
        member_sums(outputs[None])
    for bad in ([-1.0] * 5, [torch.nan] * 5):
        with pytest.raises(ValueError, match="not negative"):
            member_sums(outputs, torch.tensor(bad))
    with pytest.raises(ValueError, match="weights must be"):
        member_sums(outputs, weights[:2])
    with pytest.raises(ValueError, match="positive sum"):
        _ = member_sums(outputs, torch.zeros(5)).mean_probs
    with pytest.raises(ValueError, match="do not fit together"):
        _ = member_sums(outputs) + member_sums(outputs[:, :2])
    broken = outputs.clone()
    broken[3, 2, 0] = torch.nan
    with pytest.raises(ValueError, match=r"member 3 holds NaN or \+inf at example 2"):
        member_sums(broken)
