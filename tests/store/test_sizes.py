"""What members take is known to the byte, and it is little: on every family, the real ResNet-20, and a transformer."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from core.families import MAKERS, NAME, SHAPE, rounded
from pluria import join, low_precision, packed
from pluria.core.ensemble import Ensemble
from pluria.core.family import Shared
from pluria.numbers.key import Key
from pluria.store import file_size, save
from pluria.zoo import network


def data_bytes(path: Path) -> int:
    """Bytes of a file's tensors: what lies behind the header."""
    with path.open("rb") as file:
        return path.stat().st_size - 8 - int.from_bytes(file.read(8), "little")


def keys_in(path: Path) -> int:
    """Bits of the different keys that a file names, read from its header."""
    return 64 * len(set(re.findall(rb'\\"key\\":{\\"seed\\":(\d+)', path.read_bytes())))


@pytest.mark.parametrize("kind", MAKERS)
def test_sizes_of_every_family(tmp_path: Path, kind: str) -> None:
    make, members = MAKERS[kind]
    ensemble, path = Ensemble({NAME: make()}, members), tmp_path / "one.pluria"
    save(path, ensemble, about={"classes": ["ä", "b"]})
    assert file_size(ensemble, about={"classes": ["ä", "b"]}) == path.stat().st_size
    if "joined" not in kind:
        assert ensemble.bits().file == 8 * data_bytes(path) + keys_in(path)


@pytest.mark.parametrize("form", ["members", "planes"])
@pytest.mark.parametrize("format", ["int2", "int5", "int4-asymmetric", "int8", "fp8-e4m3", "nf4"])
def test_sizes_of_packed_members(tmp_path: Path, form: Any, format: str) -> None:
    ensemble = packed(Ensemble({NAME: rounded(format=format)}, tuple(range(10))), form=form)
    save(tmp_path / "one.pluria", ensemble)
    assert ensemble.bits().file == 8 * data_bytes(tmp_path / "one.pluria")
    assert file_size(ensemble) == (tmp_path / "one.pluria").stat().st_size


def test_planes_are_counted_as_they_are_kept() -> None:
    ensemble = low_precision(network("mlp", inputs=64, classes=10), format="int5", members=10)
    assert packed(ensemble, form="planes").bits().file == ensemble.bits().planes
    # Scales are kept once, and counted with every member that stands by itself.
    kept, told = packed(ensemble, form="members").bits().file, ensemble.bits().members
    assert told - kept == 9 * 32 * (64 + 64 + 10)


def test_tensors_that_are_equal_are_kept_once(tmp_path: Path) -> None:
    ensemble = Ensemble({"a": Shared(torch.ones(SHAPE)), "b": Shared(torch.ones(SHAPE))}, (0,))
    save(tmp_path / "one.pluria", ensemble)
    assert ensemble.bits().file == 2 * 8 * data_bytes(tmp_path / "one.pluria")
    assert file_size(ensemble) == (tmp_path / "one.pluria").stat().st_size


def test_sizes_of_several_and_of_unions(tmp_path: Path) -> None:
    model = network("mlp", inputs=64, classes=10)
    one, other = (low_precision(model, format="int4", members=3, key=Key(seed), copy=False) for seed in (0, 1))
    for held in (join(one, other), {"one": one, "other": other}):
        save(tmp_path / "several.pluria", held)
        assert file_size(held) == (tmp_path / "several.pluria").stat().st_size
    assert join(one, other).bits().file == one.bits().file + 64, "the base is shared"


def transformer() -> nn.Module:
    """A random one of 1.2 million weights; torch makes its layers equal, and a file would keep one of them."""
    layer = nn.TransformerEncoderLayer(128, 4, 512, batch_first=True)
    model = nn.ModuleDict({"embedding": nn.Embedding(3000, 128), "body": nn.TransformerEncoder(layer, 4)})
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(generator=generator)
    return model


def real(place: Path) -> nn.Module:
    model = network("cifar_resnet", depth=20)
    model.load_state_dict(load_file(place / "cifar10_resnets" / "resnet20.safetensors"))
    return model


@pytest.mark.parametrize("name", ["resnet20", "transformer"])
def test_ten_members_take_less_than_a_checkpoint_and_a_thousand_hardly_more(
    tmp_path: Path, name: str, request: pytest.FixtureRequest
) -> None:
    model = real(request.getfixturevalue("real_data")) if name == "resnet20" else transformer()
    save_file(model.state_dict(), tmp_path / "net.safetensors")
    checkpoint = (tmp_path / "net.safetensors").stat().st_size
    save(tmp_path / "ten.pluria", packed(low_precision(model, format="int5", members=10), form="planes"))
    assert (tmp_path / "ten.pluria").stat().st_size < 0.6 * checkpoint
    save(tmp_path / "many.pluria", low_precision(model, format="int5", members=1000))
    assert (tmp_path / "many.pluria").stat().st_size < 1.02 * checkpoint
