"""Snapshots are the networks of the run, bit for bit, in order."""

from __future__ import annotations

import pytest
import torch

from pluria.core.ensemble import Ensemble
from pluria.train import Snapshots, every
from train.runs import steps, tied


def taken(collector: Snapshots, count: int = 9) -> tuple[Ensemble, list[dict[str, torch.Tensor]]]:
    model = tied()
    state, seen = collector.start(model), []
    for step in steps(model, count):
        state = collector.update(state, model, step)
        seen.append({name: value.clone() for name, value in model.state_dict().items()})
    return collector.ensemble(state), seen


@pytest.mark.parametrize(("keep", "wanted"), [(None, [2, 5, 8]), (2, [5, 8]), (7, [2, 5, 8])])
def test_the_latest_snapshots_in_order(keep: int | None, wanted: list[int]) -> None:
    ensemble, seen = taken(Snapshots(every(3), keep))
    assert len(ensemble) == len(wanted)
    for member, place in enumerate(wanted):
        assert all(torch.equal(value, seen[place][name]) for name, value in ensemble.params(member).items())


def test_keeping_none_is_refused() -> None:
    with pytest.raises(ValueError, match="keep 1 snapshot or more"):
        Snapshots(keep=0)
