"""Several networks as one ensemble: predictions join before the pool, costs add up, one file holds all members."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from core.laws import same_bits
from pluria import Key, low_precision
from pluria.core.errors import RecipeError
from pluria.pool import mean_probability
from pluria.recipe.folder import RunFolder
from pluria.recipe.prepare import Prepared, prepare
from pluria.recipe.run import run
from pluria.recipe.schema import Recipe
from pluria.score import nll
from pluria.store import load_all
from pluria.zoo.views import view
from recipe.tiny import ARGUMENTS, recipe, write_all, write_network

SEEN = ["identity", "flip"]
ARMS = [
    {"method": "compensated", "members": 2, "format": "int4", "refresh": False, "views": SEEN},
    {"method": "low_precision", "networks": ["wide"], "members": 3, "format": "int4", "refresh": False},
]
TOGETHER = "INT-4 compensated 2 views × 2 of narrow + wide"


def asked(folder: Path, **changes: Any) -> Recipe:
    """A narrow and a wide network."""
    named = {
        name: {
            "model": "small_cnn",
            "arguments": {**ARGUMENTS, "width": width},
            "checkpoint": str(folder / f"{name}.pt"),
        }
        for name, width in (("narrow", 4), ("wide", 6))
    }
    return recipe(folder, **{"network": None, "networks": named, "arms": ARMS, "controls": False, **changes})


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_all(tmp_path_factory.mktemp("several"))
    for name, width in (("narrow", 4), ("wide", 6)):
        torch.save(write_network(folder / "x.safetensors", seed=width, width=width).state_dict(), folder / f"{name}.pt")
    run(asked(folder), folder / "out")
    return folder


@pytest.fixture(scope="module")
def prepared(done: Path) -> Prepared:
    return prepare(asked(done))


@pytest.fixture(scope="module")
def arms(done: Path) -> dict[str, Any]:
    found = json.loads((done / "out" / "figures.json").read_text())
    return {arm["name"]: arm for arm in found["arms"]} | {"reference": found["reference"]}


def kept(done: Path, prepared: Prepared, name: str) -> torch.Tensor:
    job = next(job for job in prepared.jobs if job.name == name)
    places = [job.place(network) for network in job.arm.networks]
    return RunFolder(done / "out").outputs(places, job.arm.members, "figures")


def test_members_of_all_networks_are_pooled(done: Path, prepared: Prepared, arms: dict[str, Any]) -> None:
    outputs = kept(done, prepared, TOGETHER)
    assert len(outputs) == 4
    pooled = mean_probability(outputs.double())
    y = prepared.rows.figures.targets
    assert arms[TOGETHER]["scores"]["nll"] == pytest.approx(float(nll(pooled, y).mean()))


def test_a_member_is_that_of_its_network_with_its_own_view_and_key(done: Path, prepared: Prepared) -> None:
    name = "INT-4 stratified × 3 of wide"
    model = prepared.sources["wide"].model
    wanted = low_precision(model, format="int4", members=3, key=Key(0).fold("wide"))
    model.load_state_dict(wanted.params(2))
    with torch.inference_mode():
        outputs = torch.cat([model(x) for x, _ in prepared.rows.figures.batches(16)])
    assert same_bits(kept(done, prepared, name)[2], outputs)


def test_each_networks_second_member_sees_the_second_view(done: Path, prepared: Prepared) -> None:
    loaded = load_all(done / "out" / "ensemble.pluria")
    assert list(loaded.ensembles) == [f"{TOGETHER}: narrow", f"{TOGETHER}: wide", "INT-4 stratified × 3 of wide: wide"]
    assert loaded.about["networks"][f"{TOGETHER}: wide"]["arguments"]["width"] == 6
    model = prepared.sources["wide"].model
    model.load_state_dict(loaded.ensembles[f"{TOGETHER}: wide"].params(1))
    with torch.inference_mode():
        outputs = torch.cat([model(view("flip")(x)) for x, _ in prepared.rows.figures.batches(16)])
    assert same_bits(kept(done, prepared, TOGETHER)[3], outputs)


def test_costs_add_up(prepared: Prepared, arms: dict[str, Any]) -> None:
    narrow, wide = (arms[f"full precision of {name}"]["cost"] for name in ("narrow", "wide"))
    both = arms[TOGETHER]["cost"]
    assert both["forwards"] == 4
    assert both["parameters"] == narrow["parameters"] + wide["parameters"]
    assert both["flops"] == 2 * (narrow["flops"] + wide["flops"])
    assert 0 < narrow["flops"] < wide["flops"]
    wanted = 0
    for source in prepared.sources.values():
        weights = [value for value in source.model.parameters() if value.ndim > 1]
        codes = sum(4 * value.numel() + 32 * len(value) for value in weights)
        state = sum(8 * value.numel() * value.element_size() for value in source.model.state_dict().values())
        wanted += 2 * codes + state - sum(32 * value.numel() for value in weights)
    assert both["bits_members"] == both["bits_planes"] == wanted


def test_the_reference_is_the_network_that_is_best_on_calibration_rows(arms: dict[str, Any]) -> None:
    singles = [f"full precision of {name}" for name in ("narrow", "wide")]
    assert arms["reference"] == min(singles, key=lambda name: arms[name]["calibration_nll_scaled"])
    gap = arms[arms["reference"]]["difference"]["nll"]
    assert (gap["low"], gap["high"]) == (0, 0)


def test_controls_of_networks_together(done: Path) -> None:
    names = {job.name for job in prepare(asked(done, controls=True)).jobs if not job.candidate}
    assert {
        "full precision of narrow",
        "full precision of wide",
        "full precision of narrow + wide",
        "full precision 2 views × 2 of narrow + wide",
        "INT-4 GPTQ of narrow + wide",
        "INT-4 nearest of narrow + wide",
        "INT-4 stratified 2 views × 2 of narrow + wide",
        "INT-4 Gaussian of matched variance × 3 of wide",
    } <= names


def test_each_network_alone_has_as_many_views_as_all_have_forwards(done: Path) -> None:
    found = prepare(asked(done, controls=True, views=["flip", "left", "right"])).jobs
    sizes = {(job.arm.networks, job.arm.members) for job in found if job.arm.method == "full_precision"}
    assert {(("narrow",), 4), (("wide",), 4), (("narrow", "wide"), 2)} <= sizes


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"arms": [{"method": "low_precision", "networks": ["wode"]}]},
            "arms.0: no network 'wode'; did you mean 'wide'?",
        ),
        ({"arms": [{"method": "low_precision", "networks": ["wide", "wide"]}]}, "a network is named twice"),
        ({"networks": {}}, "name one `network`, or several `networks` by name"),
        ({"network": {"model": "mlp"}}, "one of the two"),
    ],
)
def test_mistakes(done: Path, changes: dict[str, Any], said: str) -> None:
    with pytest.raises(RecipeError) as caught:
        asked(done, **changes)
    assert said in str(caught.value)
