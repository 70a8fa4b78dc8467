"""The examples on which members disagree most."""

from __future__ import annotations

import base64
import io

import pytest
import torch
from PIL import Image
from torch import Tensor

from pluria.recipe.pictures import SHOWN, disagreed, picture
from pluria.zoo.dataset import Dataset


def rows(count: int = 20, *, shape: tuple[int, ...] = (1, 4, 4)) -> Dataset:
    inputs = torch.rand(count, *shape, generator=torch.Generator().manual_seed(0))
    return Dataset(inputs, torch.arange(count) % 2, ("cat", "dog"), "mine")


def certain(*votes: list[int]) -> Tensor:
    """Outputs of members that are sure of their votes."""
    return 20.0 * torch.nn.functional.one_hot(torch.tensor(votes), 2).to(torch.float32)


def decoded(uri: str) -> Image.Image:
    kind, _, text = uri.partition(",")
    assert kind == "data:image/png;base64"
    return Image.open(io.BytesIO(base64.b64decode(text)))


def test_rows_by_falling_mutual_information() -> None:
    outputs = certain([0, 0, 0, 1], [0, 1, 0, 1], [0, 1, 1, 1], [0, 0, 1, 1])
    outputs[3, 2] = 0.0  # less certain, so less information than a clean split
    found = disagreed(rows(4), outputs)
    assert [entry["row"] for entry in found] == [1, 2, 0, 3]
    first = found[0]
    assert first["votes"] == [["dog", 2], ["cat", 2]]
    assert first["label"] == "dog"
    assert first["information"] == pytest.approx(0.6931, abs=1e-3)
    assert found[-1]["answer"] == "dog"
    assert found[-1]["probability"] == pytest.approx(1.0)


def test_no_more_than_are_shown() -> None:
    outputs = torch.randn(3, 20, 2, generator=torch.Generator().manual_seed(1))
    assert len(disagreed(rows(), outputs)) == SHOWN


def test_dense_outputs_and_ignored_rows_have_no_list() -> None:
    assert disagreed(rows(), torch.zeros(2, 20, 4, 2)) == []
    held = rows(4)
    held.targets[0] = -100
    assert disagreed(held, torch.zeros(2, 4, 2)) == []


def test_pictures_are_pngs_of_the_inputs() -> None:
    grey = decoded(picture(torch.tensor([[[0, 255], [255, 0]]], dtype=torch.uint8)) or "")
    assert grey.mode == "L"
    assert grey.size == (96, 96)
    assert [grey.getpixel(place) for place in ((0, 0), (95, 0), (0, 95), (95, 95))] == [0, 255, 255, 0]
    colour = decoded(picture(torch.rand(3, 32, 16)) or "")
    assert colour.mode == "RGB"
    assert colour.size == (48, 96)


def test_bytes_may_end_below_255() -> None:
    image = decoded(picture(torch.tensor([[[0, 16], [8, 200]]], dtype=torch.uint8), 16.0) or "")
    assert [image.getpixel(place) for place in ((0, 0), (95, 0), (0, 95), (95, 95))] == [0, 255, 128, 255]


def test_floats_are_scaled_to_their_own_range() -> None:
    image = decoded(picture(torch.tensor([[[-5.0, 0.0], [5.0, 2.5]]])) or "")
    assert [image.getpixel(place) for place in ((0, 0), (95, 0), (0, 95), (95, 95))] == [0, 128, 255, 191]
    assert decoded(picture(torch.full((1, 2, 2), 7.0)) or "").getextrema() == (0, 0)


@pytest.mark.parametrize("shape", [(5,), (2, 4, 4), (4, 4), (1, 2, 3, 4)])
def test_what_is_no_picture(shape: tuple[int, ...]) -> None:
    assert picture(torch.zeros(shape)) is None
    assert disagreed(rows(4, shape=shape), torch.zeros(2, 4, 2))[0]["picture"] is None
