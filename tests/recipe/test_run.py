"""A run: what is in its folder, and what its figures come from."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import pluria
from core.laws import same_bits
from pluria.core.errors import DataError, RecipeError
from pluria.predict import gather, predict
from pluria.recipe.folder import RunFolder
from pluria.recipe.named import FULL
from pluria.recipe.prepare import Prepared, prepare
from pluria.recipe.run import run
from pluria.recipe.schema import ONLY, Recipe
from pluria.store import load_all
from pluria.zoo.views import view
from recipe.finished import ARMS, REFRESHED, Stop, asked, figures_of, made, without_times
from recipe.tiny import flat, half, recipe, write_data, write_dense


def outputs_of(out: Path, prepared: Prepared, name: str) -> torch.Tensor:
    """Kept outputs of an arm with the first seed on the figure rows."""
    job = next(job for job in prepared.jobs if job.name == name)
    return RunFolder(out).outputs([job.place(ONLY)], job.arm.members, "figures")


def test_the_folder_holds_all_there_is_to_know(done: Path) -> None:
    out = done / "out"
    assert {place.name for place in out.iterdir()} == {
        "run.json",
        "environment.json",
        "predictions",
        "figures.json",
        "ensemble.pluria",
    }
    state = json.loads((out / "run.json").read_text())
    assert Recipe.model_validate(state["recipe"]) == asked(done)
    assert set(state["pinned"]) == {"device", "networks", "processor", "rows", "threads", "torch"}
    found = figures_of(out)
    assert found["command"] == "pluria run x"
    assert found["rows"]["calibration"] == found["rows"]["figures"] == 20
    assert [arm["name"] for arm in found["arms"]] == [FULL, "INT-3 stratified × 3", REFRESHED]
    environment = json.loads((out / "environment.json").read_text())
    assert environment["packages"]["torch"] == torch.__version__
    assert os.uname().nodename not in (out / "environment.json").read_text()
    assert not list(out.rglob("*.tmp"))
    assert made(out) == 11


def test_what_is_kept_is_what_members_predict(done: Path) -> None:
    prepared = prepare(asked(done))
    model, rows = prepared.sources[ONLY].model, prepared.rows
    job = next(job for job in prepared.jobs if job.name == REFRESHED and job.seed == 4)
    inputs = [x for x, _ in rows.calibration.batches(16)]
    ensemble = pluria.refresh(model, pluria.low_precision(model, format="int4", members=2, key=4), inputs)
    for name, part in (("calibration", rows.calibration), ("figures", rows.figures)):
        held = RunFolder(done / "out").outputs([job.place(ONLY)], 2, name)
        for position, seen in enumerate(("identity", "flip")):
            model.load_state_dict(ensemble.params(position))
            with torch.inference_mode():
                wanted = torch.cat([model(view(seen)(x)) for x, _ in part.batches(16)])
            assert same_bits(held[position], wanted)


def test_the_stored_ensembles_are_those_of_the_first_seed(done: Path) -> None:
    loaded = load_all(done / "out" / "ensemble.pluria")
    assert list(loaded.ensembles) == ["INT-3 stratified × 3", REFRESHED]
    prepared = prepare(asked(done))
    wanted = pluria.low_precision(prepared.sources[ONLY].model, format="int3", members=3, key=0)
    ensemble = loaded.ensembles["INT-3 stratified × 3"]
    assert all(same_bits(ensemble.params(2)[name], value) for name, value in wanted.params(2).items())
    assert loaded.about["classes"] == ["0", "1", "2"]
    assert loaded.about["network"]["model"] == "small_cnn"
    assert loaded.about["pools"] == {a["name"]: a["pool"] for a in figures_of(done / "out")["arms"] if not a["control"]}
    outputs = gather(predict(prepared.sources[ONLY].model, ensemble, list(prepared.rows.figures.batches(16))))[0]
    assert same_bits(outputs, outputs_of(done / "out", prepared, "INT-3 stratified × 3"))


def test_a_second_run_computes_the_same_figures_from_what_is_kept(done: Path, out: Path) -> None:
    before, told = {file: file.stat().st_mtime_ns for file in out.glob("predictions/**/*.safetensors")}, Stop(-1)
    again = run(asked(done), out, progress=told)
    assert again == figures_of(out)
    assert without_times(again) == without_times(figures_of(done / "out"))
    assert again["arms"][1]["cost"] == figures_of(done / "out")["arms"][1]["cost"]
    assert {file: file.stat().st_mtime_ns for file in out.glob("predictions/**/*.safetensors")} == before
    assert told.told == [("figures", 1, 1)]


def test_a_file_where_the_folder_should_be(task: Path) -> None:
    with pytest.raises(RecipeError, match=r"data\.npz.*Not a directory"):
        run(asked(task), task / "data.npz")


def test_outputs_that_are_not_finite_are_refused_by_name(task: Path) -> None:
    held = load_file(task / "net.safetensors")
    held["head.weight"], held["norm3.bias"] = held["head.weight"].sign() * 3e38, held["norm3.bias"] + 100.0
    save_file(held, task / "net.safetensors")
    with pytest.raises(DataError, match=r"full precision: the outputs on calibration hold NaN or Inf"):
        run(asked(task), task / "out")


def test_a_run_leaves_the_generator_alone(done: Path, tmp_path: Path) -> None:
    state = torch.random.get_rng_state()
    run(asked(done, arms=ARMS[:1], seeds=[0]), tmp_path / "out")
    assert torch.equal(state, torch.random.get_rng_state())


def test_the_fewest_rows_there_can_be_with_every_control(task: Path) -> None:
    write_data(task / "data.npz", rows=40)
    data = {"reader": "arrays", "arguments": {"path": str(task / "data.npz"), "classes": 3}}
    found = run(asked(task, data=data, controls=True, views=["flip"], seeds=[0]), task / "out")
    assert found["rows"]["figures"] == 20
    assert {"full precision 2 views × 2", "INT-3 nearest"} <= {arm["name"] for arm in found["arms"]}


@pytest.mark.parametrize("batch", [1, 2, 20, 16])
def test_refresh_takes_no_batch_of_one_row(tmp_path: Path, batch: int) -> None:
    save_file(flat().state_dict(), tmp_path / "flat.safetensors")
    write_data(tmp_path / "data.npz", rows=41)
    network = {"model": "recipe.tiny:flat", "checkpoint": str(tmp_path / "flat.safetensors")}
    arms = [{"method": "low_precision", "members": 2, "format": "int4", "refresh": True}]
    found = run(asked(tmp_path, network=network, arms=arms, seeds=[0], batch=batch), tmp_path / "out")
    assert found["rows"]["calibration"] == 21
    assert "INT-4 stratified refreshed × 2" in {arm["name"] for arm in found["arms"]}


def test_dense_outputs(tmp_path: Path) -> None:
    write_dense(tmp_path)
    spec = asked(
        tmp_path,
        network={"model": "recipe.tiny:dense", "checkpoint": str(tmp_path / "dense.safetensors")},
        data={"reader": "arrays", "arguments": {"path": str(tmp_path / "dense.npz")}},
        seeds=[0],
        controls=True,
        views=["flip"],
    )
    found = run(spec, tmp_path / "out")
    prepared = prepare(spec)
    outputs = outputs_of(tmp_path / "out", prepared, "INT-3 stratified × 3")
    assert outputs.shape == (3, 6, 4, 4, 3)
    y = prepared.rows.figures.targets
    total = count = 0.0
    for n, i, j in (y != -100).nonzero().tolist():
        mean = outputs[:, n, i, j].double().softmax(-1).mean(0)
        total, count = total - float(mean[y[n, i, j]].log()), count + 1
    (arm,) = [arm for arm in found["arms"] if arm["name"] == "INT-3 stratified × 3"]
    assert arm["scores"]["nll"] == pytest.approx(total / count)
    assert found["disagreed"] == []
    assert json.loads(json.dumps(found, allow_nan=False)) == found


def test_a_network_in_bfloat16(task: Path) -> None:
    save_file(half().state_dict(), task / "half.safetensors")
    network = {"model": "recipe.tiny:half", "checkpoint": str(task / "half.safetensors")}
    found = run(asked(task, network=network, arms=ARMS[:1], seeds=[0]), task / "out")
    assert [arm["name"] for arm in found["arms"]] == [FULL, "INT-3 stratified × 3"]
    assert all(load_file(file)["outputs"].dtype is torch.float32 for file in (task / "out").rglob("0*.safetensors"))


@pytest.mark.parametrize(
    ("pools", "said"),
    [(["mean_logit"], "mean_logit"), (["mean_logit", "vote"], None), (["fit_linear"], None), (["greedy"], None)],
)
def test_a_file_names_one_pool_where_all_arms_have_it_unfitted(task: Path, pools: list[str], said: str | None) -> None:
    held = {"method": "low_precision", "members": 2, "format": "int3", "refresh": False, "each": {"pool": pools}}
    write_data(task / "data.npz", rows=200)
    run(recipe(task, arms=[held], controls=False), task / "out")
    about = load_all(task / "out" / "ensemble.pluria").about
    assert about.get("pool") == said
    assert list(about["pools"].values()) == pools
