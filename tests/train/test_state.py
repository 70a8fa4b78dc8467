"""States are values: they save, load, know their network, and keep NaN out."""

from __future__ import annotations

import io

import pytest
import torch
from torch import nn

from pluria.train import EMA, SWA, SWAG, Collector, Snapshots, State, every
from train.runs import steps, tied

COLLECTORS: list[Collector] = [SWA(), EMA(0.5), SWAG(rank=3), Snapshots(), Snapshots(keep=2)]
each = pytest.mark.parametrize("collector", COLLECTORS, ids=["swa", "ema", "swag", "snapshots", "latest"])


def through_a_file(state: State) -> State:
    file = io.BytesIO()
    torch.save(state.state_dict(), file)
    file.seek(0)
    return State.from_state_dict(torch.load(file, weights_only=True))


@each
def test_a_state_goes_on_after_a_file_as_if_there_had_been_none(collector: Collector) -> None:
    ends = []
    for stop in (None, 3):
        model = tied()
        state = collector.start(model)
        for step in steps(model, 6):
            state = collector.update(state, model, step)
            state = through_a_file(state) if step == stop else state
        ends.append(collector.ensemble(state).params(0))
    assert all(torch.equal(ends[0][name], ends[1][name]) for name in ends[0])


@each
def test_a_collector_only_reads_and_an_old_state_stays(collector: Collector) -> None:
    free, watched = tied(), tied()
    for _ in steps(free, 4):
        pass
    state, before = collector.start(watched), {}
    for step in steps(watched, 4):
        state = collector.update(state, watched, step)
        if step == 2:
            old, before = state, {name: value.clone() for name, value in state.tensors.items()}
    assert all(
        torch.equal(a, b) for a, b in zip(free.state_dict().values(), watched.state_dict().values(), strict=True)
    )
    assert list(old.tensors) == list(before)
    assert all(torch.equal(old.tensors[name], value) for name, value in before.items())


@each
def test_tied_names_stay_tied_and_buffers_are_there(collector: Collector) -> None:
    model = tied()
    state = collector.update(collector.start(model), model, 1)
    ensemble = collector.ensemble(state)
    assert set(ensemble.families) == set(model.state_dict())
    assert ensemble.families["first.weight"] is ensemble.families["second.weight"]
    assert torch.equal(ensemble.params(0)["norm.num_batches_tracked"], torch.tensor(0))


@each
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_what_is_not_finite_leaves_the_state_and_is_noted(collector: Collector, bad: float) -> None:
    model = tied()
    state = collector.update(collector.start(model), model, 1)
    with torch.no_grad():
        model.second.bias[1] = bad
    after = collector.update(state, model, 2)
    assert after.skipped == (2,)
    assert after.tensors == state.tensors
    assert after.count == 1


@each
def test_a_mask_of_attention_is_no_nan(collector: Collector) -> None:
    model = tied()
    model.register_buffer("mask", torch.full((3, 3), -torch.inf).triu(1))
    state = collector.start(model)
    for step in (1, 2, 3):
        state = collector.update(state, model, step)
    assert state.count == 3
    assert torch.equal(collector.ensemble(state).params(0)["mask"], model.mask)
    with torch.no_grad():
        model.first.bias.fill_(0.0)[0] = -torch.inf
    assert collector.update(state, model, 4).skipped == (4,)


@each
def test_nothing_collected_is_refused(collector: Collector) -> None:
    model = tied()
    with pytest.raises(ValueError, match="was collected"):
        collector.ensemble(collector.start(model))
    with torch.no_grad():
        model.first.bias[0] = float("nan")
    with pytest.raises(ValueError, match="at 1 steps the parameters were not finite"):
        collector.ensemble(collector.update(collector.start(model), model, 1))


@each
def test_another_network_is_refused(collector: Collector) -> None:
    with pytest.raises(ValueError, match="'bias' is a tensor of only one"):
        collector.update(collector.start(tied()), nn.Linear(2, 2), 1)


@each
def test_wrapped_networks_keep_their_own_names(collector: Collector) -> None:
    model = tied()
    wrapped = nn.DataParallel(model)
    state = collector.update(collector.start(wrapped), wrapped, 1)
    assert set(collector.ensemble(state).families) == set(model.state_dict())
    assert set(collector.update(state, model, 2).ties) == set(model.state_dict())


def test_every() -> None:
    with pytest.raises(ValueError, match="got 0 and 0"):
        every(0)
    model = tied()
    collector = Snapshots(every(2))
    state = collector.start(model)
    for step in steps(model, 5):
        state = collector.update(state, model, step)
    assert len(collector.ensemble(state)) == 2


def test_what_is_no_state() -> None:
    with pytest.raises(ValueError, match="this is no saved state"):
        State.from_state_dict({"tensors": {}})
