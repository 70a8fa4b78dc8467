"""What does not fit together is met on two rows, before training and before any prediction."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from pluria.core.errors import DataError, PluriaError, RecipeError
from pluria.recipe.check import check_apart, check_fits, check_outputs
from pluria.recipe.prepare import prepare
from pluria.recipe.run import run
from pluria.zoo.dataset import Dataset
from recipe.tiny import ARGUMENTS, plain, recipe, write_data, write_network


def rows(targets: list[int] | torch.Tensor, *, classes: int = 3, shape: tuple[int, ...] = (1, 4, 4)) -> Dataset:
    y = torch.as_tensor(targets)
    return Dataset(torch.zeros(len(y), *shape), y, tuple(map(str, range(classes))), "mine")


def network() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(16, 3)).eval()


def dense() -> nn.Module:
    """Three classes at every place."""
    return nn.Conv2d(1, 3, 1).eval()


def test_what_fits() -> None:
    check_outputs(network(), rows([0, 1, 2, -100]))
    check_outputs(dense(), rows(torch.zeros(5, 4, 4, dtype=torch.int64)))
    assert check_fits(network(), rows([0], classes=1)).shape == (1, 3)


def test_a_network_in_another_dtype_is_run_as_a_run_would() -> None:
    model = network().to(torch.bfloat16)
    check_outputs(model, rows([0, 1]))
    assert model[1].weight.dtype is torch.bfloat16


@pytest.mark.parametrize(
    ("model", "given", "said"),
    [
        (network(), rows([0, 1], shape=(1, 5, 5)), "the network does not take inputs of shape [2, 1, 5, 5], torch.flo"),
        (dense(), rows([0, 1], shape=(7,)), "the network does not take inputs of shape [2, 7]"),
        (nn.Embedding(3, 3), rows([0, 1]), "the network does not take inputs of shape"),
        (dense(), rows([0, 1]), "gives outputs of shape [2, 3, 4, 4] for targets of shape [2]; wanted one number for"),
        (network(), rows(torch.zeros(3, 4, 4, dtype=torch.int64)), "[2, 3] for targets of shape [2, 4, 4]"),
        (nn.Flatten(0), rows([0, 1]), "gives outputs of shape [32] for targets of shape [2]"),
        (network(), rows([0, 4], classes=5), "targets of mine go up to 4, and the network numbers 3 classes from 0"),
        (network(), rows([0, 1], classes=2), "tells 3 classes apart, and mine names 2 (0, 1, ...). Where some have no"),
        (nn.LSTM(4, 4), rows([0, 1], shape=(3, 9)), "the network does not take inputs"),
    ],
)
def test_what_does_not_fit(model: nn.Module, given: Dataset, said: str) -> None:
    with pytest.raises(DataError) as caught:
        check_outputs(model, given)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


TRAIN: dict[str, Any] = {"network": {"model": "small_cnn", "arguments": ARGUMENTS, "train": {"epochs": 1}}}


@pytest.mark.parametrize(
    ("changes", "kind", "said"),
    [
        ({"arms": [{"method": "low_precision", "format": "int9"}]}, RecipeError, "unknown number format 'int9'"),
        ({"arms": [{"method": "low_precision", "granularity": 5}]}, RecipeError, "groups of 5 do not divide"),
        ({"arms": [{"method": "low_precision", "where": ["nothing.*"]}]}, RecipeError, "'nothing.*'"),
        ({"arms": [{"method": "low_precision", "format": {"no.*": "int5"}}]}, RecipeError, "'no.*'"),
        ({"arms": [{"method": "isotropic", "std": -1.0}]}, RecipeError, "std is a positive number; got -1.0"),
        ({"arms": [{"method": "gaussian", "scale": float("nan")}]}, RecipeError, "scale is a positive number; got nan"),
        ({"seeds": [-1]}, RecipeError, "a seed lies in 0..2^64-1; got -1"),
        ({"device": "gpu"}, RecipeError, "unknown device 'gpu'"),
    ],
)
def test_arms_that_cannot_be_drawn_are_met_before_training(
    task: Path, changes: dict[str, Any], kind: type[PluriaError], said: str
) -> None:
    held = {**TRAIN, "training": {"reader": "arrays", "arguments": {"path": str(task / "train.npz")}}, **changes}
    told: list[str] = []
    with pytest.raises(kind) as caught:
        run(recipe(task, **held), task / "out", progress=lambda what, done, total: told.append(what))
    assert said in str(caught.value)
    assert told == []
    assert not (task / "out").exists()


def test_rows_to_train_on_are_checked_too(task: Path) -> None:
    np.savez(task / "large.npz", x=np.zeros((6, 1, 9, 9), "float32"), y=np.arange(6) % 3)
    training = {"reader": "arrays", "arguments": {"path": str(task / "large.npz")}}
    with pytest.raises(DataError, match=r"does not take inputs of shape \[2, 1, 9, 9\]"):
        prepare(recipe(task, **TRAIN, training=training))


def test_views_are_of_images(tmp_path: Path) -> None:
    spec: dict[str, Any] = {"model": "mlp", "arguments": {"inputs": 5, "classes": 2, "hidden": []}}
    np.savez(tmp_path / "data.npz", x=np.arange(200.0, dtype="float32").reshape(40, 5), y=np.arange(40) % 2)
    data = {"reader": "arrays", "arguments": {"path": str(tmp_path / "data.npz")}}
    held = {
        "network": {**spec, "train": {"epochs": 1}},
        "training": {**data, "rows": 3},
        "arms": [{"method": "low_precision"}],
    }
    prepare(recipe(tmp_path, **held), train=False)
    with pytest.raises(DataError, match=r"views \(flip\) are of images \[N, C, H, W\]; inputs are \[20, 5\]"):
        prepare(recipe(tmp_path, **held, views=["flip"]), train=False)


def test_a_dry_run_does_not_train(task: Path) -> None:
    held = {**TRAIN, "training": {"reader": "arrays", "arguments": {"path": str(task / "train.npz")}}}
    told: list[str] = []
    prepare(recipe(task, **held), lambda what, done, total: told.append(what), train=False)
    assert told == []
    prepare(recipe(task, **held), lambda what, done, total: told.append(what))
    assert told == ["training"]


def test_a_checkpoint_of_other_shapes_is_met_before_any_work(task: Path) -> None:
    write_network(task / "net.safetensors", width=8)
    with pytest.raises(PluriaError, match="does not fit the network"):
        run(recipe(task), task / "out")
    assert not (task / "out").exists()


def test_rows_that_something_was_fitted_on_give_no_figures(task: Path) -> None:
    data = {"reader": "arrays", "arguments": {"path": str(task / "data.npz")}}
    with pytest.raises(DataError, match=r"20 of the 20 rows of data \(figures half\) are also in data"):
        prepare(recipe(task, **TRAIN, training=data))
    part = {**data, "rows": 30}
    with pytest.raises(DataError, match="30 of the 40 rows of data are also in data"):
        prepare(recipe(task, calibration=part))


def test_few_calibration_rows_of_many_figure_rows_are_no_others(task: Path) -> None:
    write_data(task / "many.npz", rows=200)
    many = {"reader": "arrays", "arguments": {"path": str(task / "many.npz")}}
    with pytest.raises(DataError, match="20 of the 200 rows of many are also in many"):
        prepare(recipe(task, data=many, calibration={**many, "rows": 20}))


def test_a_tenth_that_stands_twice_is_told(task: Path) -> None:
    with np.load(task / "data.npz") as old, np.load(task / "train.npz") as new:
        np.savez(task / "mixed.npz", x=np.concatenate([old["x"][:4], new["x"][4:]]), y=old["y"])
    mixed = {"reader": "arrays", "arguments": {"path": str(task / "mixed.npz")}}
    prepared = prepare(recipe(task, calibration=mixed))
    assert prepared.twice == 4
    assert prepared.notes == ["4 of the 40 rows of data are also in mixed: what they add to the figures is too good"]
    train = prepare(recipe(task, **TRAIN, training=mixed), train=False)
    assert train.twice == 0
    assert "of the 20 rows of data (figures half) are also in mixed" in train.notes[0]


@pytest.mark.parametrize("part", ["data", "calibration"])
def test_figures_need_labels(task: Path, part: str) -> None:
    write_data(task / "other.npz", rows=40, seed=5)
    other = {"reader": "arrays", "arguments": {"path": str(task / "other.npz")}}
    held = {"calibration": other, part: {**(other if part == "calibration" else plain(task)["data"]), "rows": 19}}
    with pytest.raises(DataError, match=r": 20 labels are the least that figures can come from, and it has 19"):
        prepare(recipe(task, **held))
    held[part]["rows"] = 20
    assert prepare(recipe(task, **held)).notes == []


def test_rows_are_marked_by_all_tensors_of_a_batch() -> None:
    class Batches:
        """Rows of two parts, in batches of their own sizes."""

        name = "mine"

        def __init__(self, second: torch.Tensor, size: int) -> None:
            first = torch.arange(40.0).view(40, 1) // 2
            y = torch.zeros(40, dtype=torch.int64)
            self.given = [
                ({"a": first[s : s + size], "b": (second[s : s + size], "words")}, y[s : s + size])
                for s in range(0, 40, size)
            ]

        def __len__(self) -> int:
            return 40

        def batches(self, size: int) -> Any:
            return self.given

    numbers = torch.arange(40)
    assert check_apart(Batches(numbers, 7), Batches(numbers + 35, 11)) == 0  # type: ignore[arg-type]
    moved = numbers.clone()
    moved[3:] += 100
    assert check_apart(Batches(numbers, 7), Batches(moved, 11)) == 3  # type: ignore[arg-type]
