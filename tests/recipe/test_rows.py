"""Rows by the words of a recipe; each mistake ends in one message."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pluria.core.errors import DataError, PluriaError, RecipeError
from pluria.recipe.parts import Data
from pluria.recipe.resolve import data_rows, dataset
from pluria.zoo.dataset import Dataset
from recipe.tiny import recipe, write_data, write_network


def test_halves_share_no_row_and_have_the_same_classes(task: Path) -> None:
    rows = data_rows(recipe(task))
    assert (len(rows.calibration), len(rows.figures)) == (20, 20)
    one, other = ({tuple(x.flatten().tolist()) for x in part.inputs} for part in (rows.calibration, rows.figures))
    assert not one & other
    counts = [torch.bincount(part.targets, minlength=3).tolist() for part in (rows.calibration, rows.figures)]
    assert all(abs(a - b) <= 1 for a, b in zip(*counts, strict=True))


def test_rows_of_their_own_calibrate(task: Path) -> None:
    write_data(task / "other.npz", rows=9, seed=1)
    rows = data_rows(
        recipe(task, calibration={"reader": "arrays", "arguments": {"path": str(task / "other.npz")}, "rows": 6})
    )
    assert (len(rows.calibration), len(rows.figures)) == (6, 40)


def test_rows_of_a_reader_of_the_users_own(package: str) -> None:
    found = dataset(Data(reader=f"{package}.net:rows", arguments={"count": 5}))
    assert isinstance(found, Dataset)
    assert len(found) == 5


@pytest.mark.parametrize(
    ("spec", "kind", "said"),
    [
        ({"reader": "digts"}, RecipeError, "no reader 'digts'; did you mean 'digits'?"),
        ({"reader": "digits", "arguments": {"splt": "test"}}, DataError, "unexpected keyword argument 'splt'"),
        ({"reader": "digits", "arguments": {"split": "tets"}}, DataError, "did you mean 'test'?"),
        ({"reader": "arrays"}, DataError, "missing a required argument: 'path'"),
        ({"reader": "arrays", "arguments": {"path": "none.npz"}}, DataError, "looked for an .npz file at none.npz"),
        ({"reader": "{0}.net:rows", "arguments": {"number": 3}}, DataError, "reader '{0}.net:rows': rows() got an"),
        ({"reader": "{0}.net:rows", "arguments": {"count": 0}}, DataError, "own: there is no example"),
        ({"reader": "{0}.net:nothing"}, RecipeError, "gives NoneType, not a pluria Dataset"),
        ({"reader": "{0}.net:rose"}, RecipeError, "has no 'rose' to call; did you mean 'rows'?"),
    ],
)
def test_readers_that_do_not_serve(package: str, spec: dict[str, Any], kind: type[PluriaError], said: str) -> None:
    held = {**spec, "reader": spec["reader"].format(package)}
    with pytest.raises(kind) as caught:
        dataset(Data.model_validate(held))
    assert said.format(package) in str(caught.value)


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        ({"x": np.zeros((0, 1, 4, 4), "float32"), "y": np.zeros(0, "int64")}, "there is no example"),
        ({"x": np.zeros((1, 1, 4, 4), "float32"), "y": np.zeros(1, "int64")}, "1 example cannot be split"),
        ({"x": np.zeros((4, 1, 4, 4), "float32"), "y": np.array([0, 1, -1, 2])}, "target -1 in row 2"),
        ({"x": np.zeros((4, 1, 4, 4), "float32"), "y": np.array([0.0, 1, 1, 2])}, "must be integers"),
        ({"x": np.zeros((4, 1, 4, 4), "float32"), "y": np.array([0, 1])}, "4 inputs but 2 targets"),
        ({"x": np.full((4, 1, 4, 4), np.nan, "float32"), "y": np.array([0, 1, 1, 2])}, "NaN or infinite inputs"),
        ({"x": np.zeros((4, 1, 4, 4), "float32"), "y": np.full(4, -100)}, "every target is -100 (ignored)"),
        ({"x": np.zeros((4, 1, 4, 4), "float32"), "y": np.array([0, -100, 0, -100])}, None),
        ({"x": np.zeros((4, 1, 4, 4), "float32")}, "no known pair"),
    ],
)
def test_rows_that_do_not_serve(tmp_path: Path, arrays: dict[str, Any], said: str | None) -> None:
    write_network(tmp_path / "net.safetensors")
    np.savez(tmp_path / "data.npz", **arrays)
    if said is None:
        data_rows(recipe(tmp_path))
        return
    with pytest.raises(DataError) as caught:
        data_rows(recipe(tmp_path))
    assert said in str(caught.value)
    assert "data" in str(caught.value)
