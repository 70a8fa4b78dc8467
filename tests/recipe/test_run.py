"""A run: what is in its folder, how it goes on after an interruption, and what it refuses to mix."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

import pluria
from core.laws import same_bits
from pluria.core.errors import DataError, RecipeError
from pluria.predict import gather, predict
from pluria.recipe.folder import RunFolder
from pluria.recipe.plan import FULL
from pluria.recipe.run import prepare, run
from pluria.recipe.schema import Recipe
from pluria.store import load_all
from pluria.zoo.views import view
from recipe.tiny import ARGUMENTS, flat, half, plain, recipe, write_all, write_data, write_dense, write_network

ARMS = [
    {"method": "low_precision", "members": 3, "format": "int3"},
    {"method": "low_precision", "members": 2, "format": "int4", "refresh": True, "views": ["identity", "flip"]},
]


def asked(folder: Path, **changes: Any) -> Recipe:
    """Two arms with two seeds beside full precision: eleven members."""
    return recipe(folder, **{"arms": ARMS, "seeds": [0, 4], "controls": False, **changes})


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A task with a finished run in its folder `out`; not to be changed."""
    folder = write_all(tmp_path_factory.mktemp("done"))
    run(asked(folder), folder / "out", command="pluria run x")
    return folder


@pytest.fixture
def out(done: Path, tmp_path: Path) -> Path:
    """A copy of the finished run, to be changed."""
    return Path(shutil.copytree(done / "out", tmp_path / "copy"))


def figures_of(out: Path) -> dict[str, Any]:
    return json.loads((out / "figures.json").read_text())


def kept(out: Path) -> dict[str, bytes]:
    """Outputs of every member, by file; seconds are left out."""
    return {
        str(file.relative_to(out)): b"".join(
            name.encode() + value.numpy().tobytes() for name, value in sorted(load_file(file).items())
        )
        for file in sorted(out.glob("predictions/*/*.safetensors"))
    }


def without_times(figures: dict[str, Any]) -> dict[str, Any]:
    """Figures without what no two runs share: seconds, date and command."""
    held = json.loads(json.dumps(figures))
    for arm in held["arms"]:
        del arm["cost"]["seconds"]
    return {name: value for name, value in held.items() if name not in ("date", "command")}


REFRESHED = "INT-4 stratified refreshed 2 views × 2"


class Stop:
    """Progress that is interrupted once so many members are done."""

    def __init__(self, after: int) -> None:
        self.after, self.told = after, []

    def __call__(self, what: str, done: float, total: float) -> None:
        self.told.append((what, done, total))
        if done == self.after and what != "figures":
            raise KeyboardInterrupt


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
    assert set(state["pinned"]) == {"code", "device", "network", "processor", "rows", "threads", "torch"}
    found = figures_of(out)
    assert found["command"] == "pluria run x"
    assert found["rows"]["calibration"] == found["rows"]["figures"] == 20
    assert [arm["name"] for arm in found["arms"]] == [FULL, "INT-3 stratified × 3", REFRESHED]
    environment = json.loads((out / "environment.json").read_text())
    assert environment["packages"]["torch"] == torch.__version__
    assert os.uname().nodename not in (out / "environment.json").read_text()
    assert not list(out.rglob("*.tmp"))
    assert len(kept(out)) == 11


def test_what_is_kept_is_what_members_predict(done: Path) -> None:
    prepared = prepare(asked(done))
    model, rows = prepared.model, prepared.rows
    job = next(job for job in prepared.jobs if job.name == REFRESHED and job.seed == 4)
    inputs = [x for x, _ in rows.calibration.batches(16)]
    ensemble = pluria.refresh(model, pluria.low_precision(model, format="int4", members=2, key=4), inputs)
    for name, part in (("calibration", rows.calibration), ("figures", rows.figures)):
        held = RunFolder(done / "out").outputs(job.slug, 2, name)
        for position, seen in enumerate(("identity", "flip")):
            model.load_state_dict(ensemble.params(position))
            with torch.inference_mode():
                wanted = torch.cat([model(view(seen)(x)) for x, _ in part.batches(16)])
            assert same_bits(held[position], wanted)


def test_the_stored_ensembles_are_those_of_the_first_seed(done: Path) -> None:
    loaded = load_all(done / "out" / "ensemble.pluria")
    assert list(loaded.ensembles) == ["INT-3 stratified × 3", REFRESHED]
    prepared = prepare(asked(done))
    wanted = pluria.low_precision(prepared.model, format="int3", members=3, key=0)
    ensemble = loaded.ensembles["INT-3 stratified × 3"]
    assert all(same_bits(ensemble.params(2)[name], value) for name, value in wanted.params(2).items())
    assert loaded.about["classes"] == ["0", "1", "2"]
    assert loaded.about["network"]["model"] == "small_cnn"
    outputs = gather(predict(prepared.model, ensemble, list(prepared.rows.figures.batches(16))))[0]
    assert same_bits(outputs, RunFolder(done / "out").outputs("int-3-stratified-3-seed0", 3, "figures"))


def test_a_second_run_computes_the_same_figures_from_what_is_kept(done: Path, out: Path) -> None:
    before, told = {file: file.stat().st_mtime_ns for file in out.glob("predictions/*/*")}, Stop(-1)
    again = run(asked(done), out, progress=told)
    assert again == figures_of(out)
    assert without_times(again) == without_times(figures_of(done / "out"))
    assert again["arms"][1]["cost"] == figures_of(done / "out")["arms"][1]["cost"]
    assert {file: file.stat().st_mtime_ns for file in out.glob("predictions/*/*")} == before
    assert told.told == [("figures", 1, 1)]


@pytest.mark.parametrize("after", [1, 5])
def test_an_interrupted_run_goes_on_to_the_same_bits(done: Path, tmp_path: Path, after: int) -> None:
    whole, part = done / "out", tmp_path / "part"
    with pytest.raises(KeyboardInterrupt):
        run(asked(done), part, progress=Stop(after))
    assert len(kept(part)) == after
    assert not (part / "figures.json").exists()
    told = Stop(-1)
    resumed = run(asked(done), part, progress=told)
    assert told.told[0][1] == after + 1
    assert kept(part) == kept(whole)
    assert without_times(resumed) == without_times(figures_of(whole))
    assert (part / "ensemble.pluria").read_bytes() == (whole / "ensemble.pluria").read_bytes()


def test_an_interrupted_training_run_goes_on_to_the_same_bits(task: Path) -> None:
    network = {"model": "small_cnn", "arguments": ARGUMENTS, "train": {"epochs": 2, "batch": 8}}
    training = {"reader": "arrays", "arguments": {"path": str(task / "train.npz")}}
    spec = asked(task, network=network, training=training, arms=ARMS[:1])
    whole = run(spec, task / "whole")
    with pytest.raises(KeyboardInterrupt):
        run(spec, task / "part", progress=Stop(3))
    resumed = run(spec, task / "part")
    assert kept(task / "part") == kept(task / "whole")
    assert without_times(resumed) == without_times(whole)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda file: file.write_bytes(file.read_bytes()[:-7]),
        lambda file: file.write_bytes(b""),
        lambda file: file.write_bytes(b"rubbish"),
        lambda file: file.unlink(),
    ],
    ids=["cut", "empty", "rubbish", "gone"],
)
def test_a_damaged_file_of_predictions_is_made_again(done: Path, out: Path, spoil: Callable[[Path], None]) -> None:
    spoil(out / "predictions" / "int-3-stratified-3-seed4" / "00001.safetensors")
    told = Stop(-1)
    again = run(asked(done), out, progress=told)
    assert [what for what, _, _ in told.told] == ["INT-3 stratified × 3", "figures"]
    assert kept(out) == kept(done / "out")
    assert without_times(again) == without_times(figures_of(done / "out"))


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"arms": ARMS[:1]}, "arms"),
        ({"seeds": [0, 4, 5]}, "seeds"),
        ({"batch": 7, "title": "another"}, "batch, title"),
        ({"controls": True}, "controls"),
    ],
)
def test_a_folder_takes_one_recipe(done: Path, out: Path, changes: dict[str, Any], named: str) -> None:
    with pytest.raises(RecipeError) as caught:
        run(asked(done, **changes), out)
    assert str(caught.value) == f"{out} holds another run (different: {named}). Give another folder, or --restart"
    assert kept(out) == kept(done / "out")


def test_other_inputs_under_the_same_names_are_noticed(task: Path) -> None:
    spec = asked(task, arms=ARMS[:1])
    with pytest.raises(KeyboardInterrupt):
        run(spec, task / "out", progress=Stop(1))
    write_data(task / "data.npz", seed=1)
    with pytest.raises(RecipeError, match=r"holds another run \(different: code, rows\)"):
        run(spec, task / "out")
    write_data(task / "data.npz", seed=0)
    write_network(task / "net.safetensors", seed=9)
    with pytest.raises(RecipeError, match=r"holds another run \(different: code, network\)"):
        run(spec, task / "out")


def test_restart_forgets_the_earlier_run(done: Path, out: Path, tmp_path: Path) -> None:
    spec = asked(done, arms=ARMS[:1], batch=7)
    with pytest.raises(KeyboardInterrupt):
        run(spec, out, restart=True, progress=Stop(2))
    assert not (out / "figures.json").exists(), "no figures of another run are left"
    assert len(kept(out)) == 2
    found = run(spec, out)
    assert without_times(found) == without_times(run(spec, tmp_path / "fresh"))
    assert kept(out) == kept(tmp_path / "fresh")


def test_restart_does_not_clear_before_the_new_recipe_is_checked(done: Path, out: Path) -> None:
    with pytest.raises(RecipeError, match="unknown number format"):
        run(asked(done, arms=[{"method": "low_precision", "format": "int99"}]), out, restart=True)
    assert kept(out) == kept(done / "out")
    assert (out / "figures.json").exists()


def test_predictions_of_an_unknown_run_are_not_used(done: Path, out: Path) -> None:
    (out / "run.json").unlink()
    with pytest.raises(RecipeError, match="holds predictions of an unknown run"):
        run(asked(done), out)


def test_a_broken_claim_is_said(done: Path, out: Path) -> None:
    (out / "run.json").write_text("{")
    with pytest.raises(RecipeError, match=r"run\.json cannot be read"):
        run(asked(done), out)


def test_a_file_where_the_folder_should_be(task: Path) -> None:
    with pytest.raises(RecipeError, match=r"data\.npz.*Not a directory"):
        run(asked(task), task / "data.npz")


def test_outputs_that_are_not_finite_are_refused_by_name(task: Path) -> None:
    held = load_file(task / "net.safetensors")
    held["head.weight"], held["norm3.bias"] = held["head.weight"].sign() * 3e38, held["norm3.bias"] + 100.0
    save_file(held, task / "net.safetensors")
    with pytest.raises(DataError, match=r"full precision: the outputs hold NaN or Inf"):
        run(asked(task), task / "out")


def test_a_run_leaves_the_generator_alone(done: Path, tmp_path: Path) -> None:
    state = torch.random.get_rng_state()
    run(asked(done, arms=ARMS[:1], seeds=[0]), tmp_path / "out")
    assert torch.equal(state, torch.random.get_rng_state())


def test_the_fewest_rows_there_can_be_with_every_control(task: Path) -> None:
    write_data(task / "data.npz", rows=2)
    data = {"reader": "arrays", "arguments": {"path": str(task / "data.npz"), "classes": 3}}
    found = run(asked(task, data=data, controls=True, views=["flip"], seeds=[0]), task / "out")
    assert found["rows"]["figures"] == 1
    assert {"full precision 2 views × 2", "INT-3 nearest"} <= {arm["name"] for arm in found["arms"]}


@pytest.mark.parametrize("batch", [1, 2, 19, 16])
def test_refresh_takes_no_batch_of_one_row(tmp_path: Path, batch: int) -> None:
    save_file(flat().state_dict(), tmp_path / "flat.safetensors")
    write_data(tmp_path / "data.npz", rows=39)
    network = {"model": "recipe.tiny:flat", "checkpoint": str(tmp_path / "flat.safetensors")}
    arms = [{"method": "low_precision", "members": 2, "format": "int4", "refresh": True}]
    found = run(asked(tmp_path, network=network, arms=arms, seeds=[0], batch=batch), tmp_path / "out")
    assert found["rows"]["calibration"] == 20
    assert "INT-4 stratified refreshed × 2" in {arm["name"] for arm in found["arms"]}


def test_one_row_is_too_few_for_refresh(tmp_path: Path) -> None:
    save_file(flat().state_dict(), tmp_path / "flat.safetensors")
    write_data(tmp_path / "data.npz", rows=2)
    network = {"model": "recipe.tiny:flat", "checkpoint": str(tmp_path / "flat.safetensors")}
    data = {"reader": "arrays", "arguments": {"path": str(tmp_path / "data.npz"), "classes": 3}}
    arms = [{"method": "low_precision", "members": 2, "format": "int4", "refresh": True}]
    with pytest.raises(RecipeError, match="refreshed × 2: batch number 0 has one value per channel"):
        run(asked(tmp_path, network=network, data=data, arms=arms), tmp_path / "out")


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
    slug = "int-3-stratified-3-seed0"
    outputs = RunFolder(tmp_path / "out").outputs(slug, 3, "figures")
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
    assert RunFolder(task / "out").outputs("full-precision-seed0", 1, "figures").dtype is torch.float32


SLOW = """
import sys, time
from pathlib import Path
from pluria.recipe.run import run
from pluria.recipe.schema import read_recipe

def tell(what, done, total):
    print(what, flush=True)
    time.sleep(0.05)

run(read_recipe(sys.argv[1]), Path(sys.argv[2]), progress=tell)
"""


def test_a_killed_run_goes_on_to_the_same_bits(task: Path) -> None:
    held = plain(task, arms=ARMS, seeds=[0, 4], controls=False)
    (task / "recipe.yaml").write_text(json.dumps(held), encoding="utf-8")
    command = [sys.executable, "-c", SLOW, str(task / "recipe.yaml"), str(task / "part")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    for _ in range(4):
        assert process.stdout.readline()
    time.sleep(0.02)
    process.kill()
    process.communicate(timeout=240)
    assert process.returncode == -signal.SIGKILL
    assert 4 <= len(kept(task / "part")) <= 6
    resumed, whole = run(asked(task), task / "part"), run(asked(task), task / "whole")
    assert kept(task / "part") == kept(task / "whole")
    assert without_times(resumed) == without_times(whole)


def test_a_network_whose_code_has_changed_is_noticed(task: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (task / "own.py").write_text("from torch import nn\nclass Net(nn.Sequential):\n    def __init__(self):\n"
                                 "        super().__init__(nn.Flatten(), nn.Linear(16, 3))\n")  # fmt: skip
    monkeypatch.chdir(task)
    net = nn.Sequential(nn.Flatten(), nn.Linear(16, 3))
    save_file(net.state_dict(), task / "own.safetensors")
    spec = asked(task, network={"model": "own:Net", "checkpoint": "own.safetensors"}, arms=ARMS[:1])
    run(spec, task / "out")
    monkeypatch.setattr(sys.modules["own"].Net, "forward", lambda self, x: 2 * self[1](self[0](x)))
    with pytest.raises(RecipeError, match=r"another run \(different: code\)"):
        run(spec, task / "out")
