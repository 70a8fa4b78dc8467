"""REPAIR brings the spread of layers back, and leaves alone what has kept it."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from align.networks import images, made
from core.laws import same_bits
from pluria.align import repair, variance_ratios
from pluria.core.ensemble import Ensemble, stack
from pluria.core.params import Params, params_of


def mean(ensemble: Ensemble) -> dict[str, Tensor]:
    rows = [ensemble.params(member) for member in ensemble.members]
    return {
        n: torch.stack([row[n] for row in rows]).mean(0) if v.is_floating_point() else v for n, v in rows[0].items()
    }


def several(kind: str, count: int = 3) -> tuple[nn.Module, Ensemble]:
    return made(kind), stack([params_of(made(kind, seed)) for seed in range(count)])


def hidden(params: Params, x: Tensor) -> Tensor:
    return (x.flatten(1) @ params["linear1.weight"].T + params["linear1.bias"]).double()


@pytest.mark.parametrize("kind", ["mlp", "dense", "torch_attention"])
def test_after_repair_every_ratio_is_one(kind: str) -> None:
    model, ensemble = several(kind)
    merged = mean(ensemble)
    before = variance_ratios(model, merged, ensemble, [images(64)])
    after = variance_ratios(model, repair(model, merged, ensemble, [images(64)], tolerance=0), ensemble, [images(64)])
    assert min(before.values()) < 0.8
    assert all(abs(ratio - 1) < 1e-3 for ratio in after.values())


def test_means_and_deviations_by_hand() -> None:
    model, ensemble = several("mlp", 2)
    ensemble, x = ensemble.reweight(torch.tensor([0.25, 0.75])), images(40)
    repaired = repair(model, mean(ensemble), ensemble, [x[:24], x[24:]])
    one, other = (hidden(ensemble.params(member), x) for member in (0, 1))
    found = hidden(repaired, x)
    assert torch.allclose(found.mean(0), 0.25 * one.mean(0) + 0.75 * other.mean(0), atol=1e-4)
    wanted = 0.25 * one.std(0, correction=0) + 0.75 * other.std(0, correction=0)
    assert torch.allclose(found.std(0, correction=0), wanted, rtol=1e-4)


def test_copies_of_one_network_are_left_as_they_are() -> None:
    model = made("mlp")
    params = params_of(model)
    repaired = repair(model, params, stack([params, params]), [images()])
    assert all(same_bits(repaired[name], params[name]) for name in params)
    assert set(variance_ratios(model, params, stack([params, params]), [images()]).values()) == {1.0}


def test_only_what_is_outside_the_tolerance_is_touched() -> None:
    model, ensemble = several("mlp")
    merged = mean(ensemble)
    ratios = variance_ratios(model, merged, ensemble, [images()])
    assert list(ratios) == ["linear1", "linear2"]  # the head is the last layer
    wide = repair(model, merged, ensemble, [images()], tolerance=1.0)
    assert all(same_bits(wide[name], merged[name]) for name in merged)
    off = {name: abs(ratio - 1) for name, ratio in ratios.items()}
    gentle, harsh = sorted(off, key=lambda name: off[name])
    assert off[gentle] < off[harsh]
    touched = repair(model, merged, ensemble, [images()], tolerance=(off[gentle] + off[harsh]) / 2)
    assert not same_bits(touched[f"{harsh}.weight"], merged[f"{harsh}.weight"])
    if harsh == "linear2":  # the other is measured before it
        assert same_bits(touched[f"{gentle}.weight"], merged[f"{gentle}.weight"])


def test_mistakes_are_told() -> None:
    model, ensemble = several("vgg")
    with pytest.raises(ValueError, match="this model has batch norm: refresh the statistics"):
        repair(model, ensemble.params(0), ensemble, [images()])
    model, ensemble = several("mlp")
    with pytest.raises(ValueError, match="no inputs to measure"):
        repair(model, ensemble.params(0), ensemble, [])
    with pytest.raises(ValueError, match="NaN or Inf among the inputs of layer 'linear1'"):
        repair(model, ensemble.params(0), ensemble, [images() / 0])
