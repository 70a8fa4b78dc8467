"""Figures beyond the rows an arm was calibrated for: shifted rows, and rows of no known class."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from pluria.core.errors import DataError, RecipeError
from pluria.pool import Temperature, mean_probability
from pluria.recipe.beyond import Beyond, differences
from pluria.recipe.folder import RunFolder
from pluria.recipe.prepare import prepare
from pluria.recipe.run import run
from pluria.recipe.schema import Recipe
from pluria.score import entropy, nll
from recipe.tiny import CLASSES, recipe, write_network

ARMS = [
    {"method": "low_precision", "members": 3, "format": "int3", "refresh": False},
    {"method": "low_precision", "members": 3, "format": "int4", "refresh": False, "beyond": False},
]
BEYOND = "INT-3 stratified × 3"


def asked(folder: Path, **changes: Any) -> Recipe:
    more: dict[str, Any] = {
        "arms": ARMS,
        "controls": False,
        "shifted": {"dark": {"brightness": -0.3}},
        "shifted_rows": 12,
        "outside": {"other": {"reader": "arrays", "arguments": {"path": str(folder / "other.npz")}, "rows": 9}},
    }
    return recipe(folder, **{**more, **changes})


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures of whole bytes, as changes of brightness want them; those of no known class are of another shade."""
    folder = tmp_path_factory.mktemp("beyond")
    write_network(folder / "net.safetensors")
    draw = np.random.default_rng(0)
    y = np.arange(40) % CLASSES
    np.savez(folder / "data.npz", x=draw.integers(0, 200, (40, 1, 4, 4)).astype("uint8"), y=y)
    np.savez(folder / "other.npz", x=draw.integers(150, 255, (20, 1, 4, 4)).astype("uint8"), y=y[:20])
    np.savez(folder / "large.npz", x=np.zeros((6, 1, 9, 9), "uint8"), y=y[:6])
    return folder


@pytest.fixture(scope="module")
def arms(folder: Path) -> dict[str, Any]:
    found = run(asked(folder), folder / "out")
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    return {arm["name"]: arm for arm in found["arms"]}


def outputs(folder: Path, part: str) -> torch.Tensor:
    job = next(job for job in prepare(asked(folder)).jobs if job.name == BEYOND)
    return RunFolder(folder / "out").outputs([job.place("network")], 3, part).double()


def test_shifted_rows_are_scored_with_the_temperature_of_clean_ones(folder: Path, arms: dict[str, Any]) -> None:
    pooled = mean_probability(outputs(folder, "shifted-dark"))
    y = prepare(asked(folder)).rows.figures.targets[:12]
    found = arms[BEYOND]["shifted"]["dark"]
    assert found["scores"]["nll"] == pytest.approx(float(nll(pooled, y).mean()))
    scaled = Temperature(arms[BEYOND]["temperature"])(pooled)
    assert found["scaled"]["nll"] == pytest.approx(float(nll(scaled, y).mean()))


def test_outside_rows_are_told_by_uncertainty(folder: Path, arms: dict[str, Any]) -> None:
    inside, outside = (entropy(mean_probability(outputs(folder, part))) for part in ("figures", "outside-other"))
    found = arms[BEYOND]["outside"]["other"]
    wanted = roc_auc_score([0] * len(inside) + [1] * len(outside), torch.cat([inside, outside]).numpy())
    assert found["entropy"]["auroc"] == pytest.approx(wanted)
    assert set(found) == {"entropy", "entropy_scaled", "mutual_information"}
    assert set(arms["full precision"]["outside"]["other"]) == {"entropy", "entropy_scaled"}, "one model has no members"


def test_an_arm_may_leave_them_out(folder: Path, arms: dict[str, Any]) -> None:
    assert not {"shifted", "outside"} & set(arms["INT-4 stratified × 3"])
    assert len(list((folder / "out" / "predictions").glob("*/int-4*/*"))) == 2
    assert len(list((folder / "out" / "predictions").glob("*/int-3*/*"))) == 4


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"shifted": {"dark": {"darkness": 1}}}, "shifted.dark: no change 'darkness'"),
        ({"shifted": {"dark": {}}}, "shifted.dark: no change is named"),
        ({"shifted": {"loud": {"noise": -1.0}}}, "shifted.loud: the amount of noise must be"),
    ],
)
def test_changes_that_do_not_exist(folder: Path, changes: dict[str, Any], said: str) -> None:
    with pytest.raises((RecipeError, DataError)) as caught:
        prepare(asked(folder, **changes))
    assert said in str(caught.value)


def test_outside_rows_of_another_shape(folder: Path) -> None:
    data = {"reader": "arrays", "arguments": {"path": str(folder / "large.npz")}}
    with pytest.raises(DataError, match=r"outside.large: inputs are of shape \[1, 9, 9\]"):
        prepare(asked(folder, outside={"large": data}))


def test_differences_to_full_precision_are_paired(folder: Path, arms: dict[str, Any]) -> None:
    gap = arms[BEYOND]["difference"]
    dark = arms[BEYOND]["shifted"]["dark"]["scaled"]["nll"] - arms["full precision"]["shifted"]["dark"]["scaled"]["nll"]
    other = [arms[name]["outside"]["other"]["entropy_scaled"]["auroc"] for name in (BEYOND, "full precision")]
    for found, wanted in ((gap["shifted"]["dark"], dark), (gap["outside"]["other"], other[0] - other[1])):
        assert found["estimate"] == pytest.approx(wanted, abs=1e-12)
        assert found["low"] < found["estimate"] < found["high"]
    own = arms["full precision"]["difference"]["shifted"]["dark"]
    assert (own["low"], own["estimate"], own["high"]) == (0.0, 0.0, 0.0)
    assert "shifted" not in arms["INT-4 stratified × 3"]["difference"]


def test_places_of_one_example_are_drawn_together() -> None:
    draw = torch.Generator().manual_seed(0)
    inside, outer = torch.rand(30, 1, generator=draw), 0.3 + torch.rand(20, 1, generator=draw)
    moved = inside + 0.5 * torch.rand(30, 1, generator=draw)

    def gap(places: int) -> Any:
        far = {"o": outer.expand(-1, places)}
        own, full = (Beyond(inside=part.expand(-1, places), outside=far) for part in (moved, inside))
        return differences([own], full)["outside"]["o"]

    assert gap(4) == pytest.approx(gap(1))
