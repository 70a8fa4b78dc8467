"""SWA is the mean, torch's own average agrees; EMA is its closed form."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

from pluria.align import refresh
from pluria.predict import gather, predict
from pluria.train import EMA, SWA
from train.runs import steps, tied


def iterates(collector: SWA | EMA, count: int = 7) -> tuple[dict[str, torch.Tensor], list[torch.Tensor], AveragedModel]:
    model = tied()
    state, seen, theirs = collector.start(model), [], AveragedModel(model)
    for step in steps(model, count):
        state = collector.update(state, model, step)
        theirs.update_parameters(model)
        seen.append(model.norm.weight.detach().clone().double())
    return collector.ensemble(state).params(0), seen, theirs


def test_swa_is_the_mean_of_the_iterates() -> None:
    found, seen, theirs = iterates(SWA())
    assert torch.allclose(found["norm.weight"].double(), torch.stack(seen).mean(0), atol=1e-6)
    own = theirs.module.state_dict()
    assert all(torch.allclose(found[n], own[n], atol=1e-6) for n, _ in tied().named_parameters(remove_duplicate=False))


def test_ema_by_hand() -> None:
    found, seen, _ = iterates(EMA(0.3))
    mean = seen[0]
    for n, value in enumerate(seen[1:], start=1):
        decay = min(0.3, (1 + n) / (10 + n))
        mean = decay * mean + (1 - decay) * value
    assert torch.allclose(found["norm.weight"].double(), mean, atol=1e-6)


def test_buffers_are_the_latest() -> None:
    model = tied()
    state = SWA().start(model)
    for step in steps(model, 3):
        state = SWA().update(state, model, step)
    assert torch.equal(SWA().ensemble(state).params(0)["norm.running_mean"], model.norm.running_mean)


def test_sixteen_bits_are_averaged_in_thirty_two() -> None:
    model = nn.Linear(4, 4, dtype=torch.bfloat16)
    state, values = SWA().start(model), []
    for step in range(1, 40):
        with torch.no_grad():
            model.weight.copy_(torch.randn(4, 4, generator=torch.Generator().manual_seed(step)) * 1e-3 + 1)
        values.append(model.weight.detach().double())
        state = SWA().update(state, model, step)
    found = SWA().ensemble(state).params(0)["weight"]
    assert found.dtype == torch.bfloat16
    assert torch.equal(found, torch.stack(values).mean(0).to(torch.bfloat16))


@pytest.mark.parametrize("decay", [-0.1, 1.0, float("nan")])
def test_a_decay_outside_its_range(decay: float) -> None:
    with pytest.raises(ValueError, match="a decay lies in"):
        EMA(decay)


def test_statistics_of_an_average_are_stale_until_they_are_refreshed() -> None:
    model = tied()
    collector = SWA()
    state = collector.start(model)
    for step in steps(model, 6, rate=0.5):
        state = collector.update(state, model, step)
    ensemble = collector.ensemble(state)
    inputs = torch.randn(64, 3, generator=torch.Generator().manual_seed(2))
    fresh = refresh(model, ensemble, [inputs], plain=True)
    stale, right = (gather(predict(model, each, [inputs]))[0] for each in (ensemble, fresh))
    assert not torch.allclose(stale, right, atol=1e-3)
