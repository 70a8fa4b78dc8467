"""Running means: blocks, shards and orders of adding change nothing beyond 1e-12."""

import functools

import pytest
import torch

from pluria.pool import RunningMean, mean, mean_logit, mean_probability

BATCH = {"probability": mean_probability, "logit": mean_logit, "output": mean}
CLOSE = {"rtol": 1e-12, "atol": 1e-12}


def ensemble(k=7, n=4, c=5):
    generator = torch.Generator().manual_seed(3)
    outputs = torch.randn(k, n, c, generator=generator, dtype=torch.float64) * 5
    return outputs, torch.rand(k, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("rule", BATCH)
@pytest.mark.parametrize("block", [1, 2, 3, 7])
def test_blocks_equal_the_batch_form(rule, block):
    outputs, weights = ensemble()
    running = RunningMean(rule)
    for start in range(0, 7, block):
        running = running.add(outputs[start : start + block], weights[start : start + block])
    torch.testing.assert_close(running.finish(), BATCH[rule](outputs, weights), **CLOSE)


@pytest.mark.parametrize("rule", BATCH)
def test_shards_merge_in_any_order(rule):
    outputs, weights = ensemble()
    shards = [RunningMean(rule).add(outputs[i : i + 1], weights[i : i + 1]) for i in range(7)]
    wanted = BATCH[rule](outputs, weights)
    for order in (shards, shards[::-1], [RunningMean(rule), *shards, RunningMean(rule)]):
        torch.testing.assert_close(functools.reduce(RunningMean.merge, order).finish(), wanted, **CLOSE)


@pytest.mark.parametrize("rule", BATCH)
def test_a_block_may_skip_examples_as_long_as_another_has_them(rule):
    outputs, _ = ensemble(k=2)
    weights = torch.tensor([[1.0, 1.0, 0.0, 0.0], [0.0, 1.0, 1.0, 1.0]])
    running = RunningMean(rule).add(outputs[:1], weights[:1])
    with pytest.raises(ValueError, match="every example"):
        running.finish()
    wanted = BATCH[rule](outputs, weights)
    torch.testing.assert_close(running.add(outputs[1:], weights[1:]).finish(), wanted, **CLOSE)


def test_adding_leaves_the_value_as_it_was_and_does_not_grow():
    outputs, weights = ensemble()
    first = RunningMean("probability").add(outputs[:1], weights[:1])
    before = first.finish()
    second = first.add(outputs[1:], weights[1:])
    assert torch.equal(first.finish(), before)
    assert second.state.shape == first.state.shape == (4, 5)


def test_dtype_of_the_outputs_comes_back():
    outputs, _ = ensemble()
    assert RunningMean("logit").add(outputs.bfloat16()).finish().dtype == torch.bfloat16


def test_what_does_not_fit_is_refused():
    outputs, _ = ensemble()
    one = RunningMean("probability").add(outputs)
    with pytest.raises(ValueError, match="cannot merge a mean"):
        one.merge(RunningMean("logit").add(outputs))
    with pytest.raises(ValueError, match="cannot merge members"):
        one.add(outputs[:, :2])
    with pytest.raises(ValueError, match="cannot merge members"):
        one.add(outputs.float())
    with pytest.raises(ValueError, match="no member was added"):
        RunningMean("output").finish()
    with pytest.raises(ValueError, match="the rule must be"):
        RunningMean("median")
