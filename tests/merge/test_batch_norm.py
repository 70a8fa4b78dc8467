"""Statistics of batch norm in merges: variances stay positive, counts stay counts, whatever task vectors do."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from pluria import Merge, merge_files, params_of, refresh, single
from pluria.core.ensemble import Ensemble, stack
from pluria.core.params import Params
from pluria.merge import (
    Rule,
    breadcrumbs,
    combined,
    corrected_mean,
    dare,
    della,
    instant_soup,
    leafwise,
    linear,
    model_stock,
    sce,
    task_arithmetic,
    ties,
    wise_ft,
)
from pluria.zoo import network

BEYOND: dict[str, Callable[[], Rule]] = {
    "task_arithmetic": lambda: task_arithmetic(scale=2.0),
    "ties": lambda: ties(scale=3.0),
    "dare": lambda: dare(density=0.5, key=1),
    "della": lambda: della(key=1),
    "breadcrumbs": lambda: breadcrumbs(density=0.9, scale=3.0),
    "sce": lambda: sce(scale=3.0),
    "instant_soup": lambda: instant_soup(density=0.5),
    "corrected_mean": corrected_mean,
    "model_stock": lambda: model_stock(clamp=False),
}


@pytest.fixture(scope="module")
def resnet(real_data: Path) -> tuple[torch.nn.Module, Params, Ensemble, Tensor]:
    """A public ResNet-20, and members whose statistics are those of darker images; some images."""
    model = network("cifar_resnet", depth=20)
    model.load_state_dict(load_file(real_data / "cifar10_resnets" / "resnet20.safetensors"))
    base, x = params_of(model), torch.randn(64, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    members = [refresh(model, single(base), [shade * x], plain=True).params(0) for shade in (0.2, 0.3)]
    return model.eval(), base, stack(members), x


@pytest.mark.parametrize("method", BEYOND)
def test_variances_of_a_real_network_stay_positive(
    method: str, resnet: tuple[torch.nn.Module, Params, Ensemble, Tensor]
) -> None:
    model, base, ensemble, x = resnet
    made, mean = leafwise(ensemble, BEYOND[method](), base=base), leafwise(ensemble, linear())
    for name, value in made.items():
        if "running" in name:
            assert torch.equal(value, mean[name]), name
        if name.endswith("running_var"):
            assert bool((value > 0).all()), name
        if name.endswith("num_batches_tracked"):
            assert torch.equal(value, base[name])
    model.load_state_dict(made)
    with torch.no_grad():
        assert bool(model(x).isfinite().all())


def test_without_the_rule_for_statistics_they_would_be_negative(
    resnet: tuple[torch.nn.Module, Params, Ensemble, Tensor],
) -> None:
    _, base, ensemble, _ = resnet
    renamed = stack([{n.replace("running", "mean_of"): v for n, v in one.items()} for one in ensemble])
    origin = {n.replace("running", "mean_of"): v for n, v in base.items()}
    made = leafwise(renamed, BEYOND["task_arithmetic"](), base=origin)
    assert any(bool((value < 0).any()) for name, value in made.items() if name.endswith("mean_of_var"))


def test_rules_that_stay_between_members_merge_statistics_too(
    resnet: tuple[torch.nn.Module, Params, Ensemble, Tensor],
) -> None:
    _, base, ensemble, _ = resnet
    assert torch.equal(leafwise(ensemble, wise_ft(alpha=0.0), base=base)["bn1.running_var"], base["bn1.running_var"])
    shares = torch.tensor([[0.75, 0.25]], dtype=torch.float64)
    one, other = (member["bn1.running_var"].double() for member in ensemble)
    fitted = combined(ensemble, shares, groups=lambda name: 0)["bn1.running_var"]
    assert torch.equal(fitted, (0.75 * one + 0.25 * other).float())
    beyond = combined(ensemble, torch.tensor([[2.0, -1.0]]).double(), groups=lambda name: 0)["bn1.running_var"]
    assert torch.allclose(beyond, ((one + other) / 2).float())


def test_files_are_merged_alike(resnet: tuple[torch.nn.Module, Params, Ensemble, Tensor], tmp_path: Path) -> None:
    _, base, ensemble, _ = resnet
    paths = [str(tmp_path / f"{k}.safetensors") for k in range(3)]
    for path, params in zip(paths, (base, *ensemble), strict=True):
        save_file(dict(params), path)
    merge = Merge("task_arithmetic", tuple(paths[1:]), paths[0], options={"scale": 2.0})
    merge_files(merge, tmp_path / "out.safetensors")
    found, held = load_file(tmp_path / "out.safetensors"), leafwise(ensemble, task_arithmetic(scale=2.0), base=base)
    assert all(torch.equal(found[name], value) for name, value in held.items())


def test_a_tensor_that_only_sounds_like_a_statistic_is_merged_by_the_rule() -> None:
    base, one = {"running_var": torch.ones(2)}, {"running_var": torch.tensor([3.0, 1.0])}
    made = leafwise(stack([one]), task_arithmetic(scale=2.0), base=base)
    assert made["running_var"].tolist() == [5.0, 1.0]
    both = {"running_mean": torch.zeros(2)}
    made = leafwise(stack([one | both]), task_arithmetic(scale=2.0), base=base | both)
    assert made["running_var"].tolist() == [3.0, 1.0]
