from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from pluria.zoo.cifar import cifar10
from pluria.zoo.dataset import Dataset
from pluria.zoo.frn import FilterResponseNorm, ThresholdedLinear
from pluria.zoo.resnet import cifar_resnet

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
DEPTHS = (20, 32, 56)


@pytest.fixture(scope="module")
def thousand(official_layouts: Path) -> Dataset:
    return cifar10(official_layouts, mean=MEAN, std=STD).take(slice(0, 1000))


@pytest.mark.parametrize("depth", DEPTHS)
def test_names_and_shapes_are_those_of_the_public_checkpoints(real_data: Path, depth: int) -> None:
    stored = load_file(real_data / "cifar10_resnets" / f"resnet{depth}.safetensors")
    own = cifar_resnet(depth).state_dict()
    counters = {name for name in own if name.endswith("num_batches_tracked")}  # not part of those files
    assert {name: tensor.shape for name, tensor in stored.items()} == {
        name: tensor.shape for name, tensor in own.items() if name not in counters
    }


@pytest.mark.parametrize("depth", DEPTHS)
def test_logits_of_the_public_checkpoints(real_data: Path, thousand: Dataset, depth: int) -> None:
    model = cifar_resnet(depth).eval()
    model.load_state_dict(load_file(real_data / "cifar10_resnets" / f"resnet{depth}.safetensors"), strict=True)
    with np.load(real_data / "cifar10_resnet_logits" / "logits.npz") as known:
        wanted = torch.from_numpy(known["test"][DEPTHS.index(depth), : len(thousand)])
    with torch.inference_mode():
        logits = torch.cat([model(x) for x, _ in thousand.batches(250)])
    torch.testing.assert_close(logits, wanted, rtol=0, atol=1e-3)
    assert (logits.argmax(dim=1) != thousand.targets).float().mean() < 0.10


def test_a_halving_shortcut_takes_every_second_pixel_and_pads_both_sides() -> None:
    block = cifar_resnet(8).layer2[0].eval()
    with torch.no_grad():
        block.bn2.weight.zero_()  # silences the residual branch
        x = torch.rand(2, 16, 6, 6, generator=torch.Generator().manual_seed(0))
        y = block(x)
    assert y.shape == (2, 32, 3, 3)
    assert torch.equal(y[:, 8:24], x[:, :, ::2, ::2])
    assert not y[:, :8].any()
    assert not y[:, 24:].any()


@pytest.mark.parametrize(("depth", "layers"), [(8, 7), (20, 19)])
def test_depth_counts_the_layers(depth: int, layers: int) -> None:
    assert sum(isinstance(m, nn.Conv2d) for m in cifar_resnet(depth).modules()) == layers


@pytest.mark.parametrize(("activation", "kind"), [("relu", nn.ReLU), ("swish", nn.SiLU), ("tlu", ThresholdedLinear)])
def test_filter_response_variants_hold_no_running_statistics(activation: str, kind: type[nn.Module]) -> None:
    model = cifar_resnet(8, classes=7, norm="frn", activation=activation)
    assert sum(isinstance(m, FilterResponseNorm) for m in model.modules()) == 7
    assert sum(isinstance(m, kind) for m in model.modules()) == 7
    assert not list(model.buffers())
    assert model(torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))).shape == (2, 7)


def test_refusals() -> None:
    for depth in (2, 18, 21):
        with pytest.raises(ValueError, match=rf"6n \+ 2 .*, not {depth}"):
            cifar_resnet(depth)
    with pytest.raises(ValueError, match="norm"):
        cifar_resnet(norm="layer")
    with pytest.raises(ValueError, match="did you mean 'swish'"):
        cifar_resnet(activation="swich")
