"""Figures of stored predictions, and files that are none."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from pluria.core.errors import DataError
from pluria.recipe.measure import measure
from pluria.recipe.outputs import Outputs
from pluria.recipe.stored import scored


def outputs(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def file(folder: Path, **tensors: Tensor) -> Path:
    save_file(tensors, folder / "p.safetensors")
    return folder / "p.safetensors"


def test_one_half_fits_the_temperature_and_the_other_gives_the_figures(tmp_path: Path) -> None:
    y, z = torch.arange(30) // 10, outputs(4, 30, 3)
    found = scored(file(tmp_path, outputs=z, targets=y))
    wanted = measure(Outputs(z[:, ::2], y[::2]), Outputs(z[:, 1::2], y[1::2])).figures
    assert found["rows"] == {"calibration": 15, "figures": 15}
    assert found["members"] == 4
    for name in ("temperature", "scores", "scaled", "diversity"):
        assert found[name] == wanted[name]


def test_halves_have_the_same_classes_in_any_order_of_the_rows(tmp_path: Path) -> None:
    # In this order even rows are all of class 0, and odd ones all of class 1.
    y = torch.arange(40) % 2
    z = torch.zeros(1, 40, 2)
    z[0, :, 0] = 1.0
    found = scored(file(tmp_path, outputs=z, targets=y))
    assert found["scores"]["error"] == 0.5


def test_weights_of_members_count(tmp_path: Path) -> None:
    y, z = torch.arange(30) % 3, outputs(2, 30, 3)
    alone = scored(file(tmp_path, outputs=z[:1].contiguous(), targets=y))
    weighted = scored(file(tmp_path, outputs=z, targets=y, weights=torch.tensor([1.0, 0.0])))
    assert weighted["scores"] == pytest.approx(alone["scores"])
    assert weighted["temperature"] == pytest.approx(alone["temperature"])
    assert weighted["members"] == 2


def test_dense_predictions(tmp_path: Path) -> None:
    y = torch.arange(4 * 6).view(4, 6) % 3
    y[0, 0] = -100
    found = scored(file(tmp_path, outputs=outputs(2, 4, 6, 3), targets=y))
    assert found["rows"] == {"calibration": 11, "figures": 12}


@pytest.mark.parametrize(
    ("tensors", "said"),
    [
        ({"outputs": outputs(2, 6, 3)}, "holds outputs; scoring needs outputs and targets"),
        ({"weight": outputs(3)}, "holds weight; scoring needs outputs and targets"),
        ({"outputs": outputs(2, 6, 3), "targets": torch.tensor([0, 1, 2, 3, 0, 1])}, "target 3 at index"),
        ({"outputs": outputs(2, 6, 3), "targets": torch.tensor([0, 1, -1, 1, 0, 1])}, "target -1 at index"),
        ({"outputs": outputs(2, 6, 3), "targets": torch.zeros(5, dtype=torch.int64)}, "shapes [2, 6, 3] and [5]"),
        ({"outputs": outputs(6), "targets": torch.zeros(6, dtype=torch.int64)}, "have the shapes [6] and [6]"),
        ({"outputs": outputs(2, 1, 3), "targets": torch.zeros(1, dtype=torch.int64)}, "has 1 row; one half is"),
        ({"outputs": outputs(2, 6, 3), "targets": torch.zeros(6)}, "class indices of an integer type"),
        ({"outputs": outputs(2, 6, 3), "targets": torch.full((6,), -100)}, "no row with a target is left"),
        ({"outputs": outputs(2, 6, 3) * torch.nan, "targets": torch.arange(6) % 3}, "NaN"),
        ({"outputs": outputs(2, 6, 3), "targets": torch.arange(6) % 3, "weights": torch.ones(3)}, "weights must be"),
        ({"outputs": outputs(2, 6, 3), "targets": torch.arange(6) % 3, "weights": -torch.ones(2)}, "weights must be"),
    ],
)
def test_files_that_cannot_be_scored(tmp_path: Path, tensors: dict[str, Tensor], said: str) -> None:
    place = file(tmp_path, **tensors)
    with pytest.raises(DataError) as caught:
        scored(place)
    assert said in str(caught.value)
    assert str(place) in str(caught.value)


def test_files_that_are_no_predictions(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("outputs")
    for place in (tmp_path / "text", tmp_path / "none", tmp_path):
        with pytest.raises(DataError, match="cannot be read as predictions"):
            scored(place)
