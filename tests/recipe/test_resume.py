"""A run goes on after an interruption to the same bits, and refuses to mix with another."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import save_file
from torch import nn

from pluria.core.errors import RecipeError
from pluria.recipe.run import run
from recipe.finished import ARMS, Stop, asked, figures_of, kept, made, without_times
from recipe.tiny import ARGUMENTS, plain, write_data, write_network


@pytest.mark.parametrize("after", [1, 5])
def test_an_interrupted_run_goes_on_to_the_same_bits(done: Path, tmp_path: Path, after: int) -> None:
    whole, part = done / "out", tmp_path / "part"
    with pytest.raises(KeyboardInterrupt):
        run(asked(done), part, progress=Stop(after))
    assert made(part) == after
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
    spoil(next(out.glob("predictions/network/int-3-stratified-*-seed4/figures/00001.safetensors")))
    told = Stop(-1)
    again = run(asked(done), out, progress=told)
    assert [what for what, _, _ in told.told] == ["INT-3 stratified × 3, member 1", "figures"]
    assert kept(out) == kept(done / "out")
    assert without_times(again) == without_times(figures_of(done / "out"))


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"batch": 7, "title": "another"}, "batch"),
        ({"unlabelled_rows": 8, "channels_last": True}, "channels_last, unlabelled_rows"),
        (
            {"data": {"reader": "arrays", "arguments": {"path": "{0}/train.npz"}}},
            "networks.network, rows.calibration, rows.figures",
        ),
    ],
)
def test_a_folder_takes_one_way_of_predicting(done: Path, out: Path, changes: dict[str, Any], named: str) -> None:
    with pytest.raises(RecipeError) as caught:
        run(asked(done, **json.loads(json.dumps(changes).replace("{0}", str(done)))), out)
    assert str(caught.value) == f"{out} holds another run (different: {named}). Give another folder, or --restart"
    assert kept(out) == kept(done / "out")


@pytest.mark.parametrize(
    ("changes", "fresh"),
    [
        ({"arms": ARMS[:1]}, 0),
        ({"seeds": [0, 4, 5]}, 5),
        ({"arms": [{**ARMS[0], "members": 5}, ARMS[1]], "title": "larger"}, 4),
        ({"arms": [*ARMS, {**ARMS[0], "format": "int5"}]}, 6),
    ],
)
def test_a_recipe_may_gain_and_lose_arms(
    done: Path, out: Path, tmp_path: Path, changes: dict[str, Any], fresh: int
) -> None:
    told = Stop(-1)
    found = run(asked(done, **changes), out, progress=told)
    assert len(told.told) == fresh + 1
    assert kept(done / "out").items() <= kept(out).items()
    assert without_times(found) == without_times(run(asked(done, **changes), tmp_path / "afresh"))


def test_rows_to_look_at_may_be_added_later(done: Path, out: Path, tmp_path: Path) -> None:
    more = {"shifted": {"dark": {"brightness": -0.5}}, "outside": {"train": {"reader": "arrays", "arguments": {}}}}
    more["outside"]["train"]["arguments"] = {"path": str(done / "train.npz")}
    scaled = {"data": {"reader": "arrays", "arguments": {"path": str(done / "data.npz")}}}
    del more["shifted"]  # these pictures have no range that a change could keep to
    found = run(asked(done, **scaled, **more), out)
    assert len(kept(out)) == 11 * 3
    assert all(0 <= arm["outside"]["train"]["entropy"]["auroc"] <= 1 for arm in found["arms"])
    assert without_times(found) == without_times(run(asked(done, **scaled, **more), tmp_path / "afresh"))


def test_other_inputs_under_the_same_names_are_noticed(task: Path) -> None:
    spec = asked(task, arms=ARMS[:1])
    with pytest.raises(KeyboardInterrupt):
        run(spec, task / "out", progress=Stop(1))
    write_data(task / "data.npz", seed=1)
    with pytest.raises(RecipeError, match=r"different: networks.network, rows.calibration, rows.figures\)"):
        run(spec, task / "out")
    write_data(task / "data.npz", seed=0)
    write_network(task / "net.safetensors", seed=9)
    with pytest.raises(RecipeError, match=r"holds another run \(different: networks.network\)"):
        run(spec, task / "out")


def test_restart_forgets_the_earlier_run(done: Path, out: Path, tmp_path: Path) -> None:
    spec = asked(done, arms=ARMS[:1], batch=7)
    with pytest.raises(KeyboardInterrupt):
        run(spec, out, restart=True, progress=Stop(2))
    assert not (out / "figures.json").exists(), "no figures of another run are left"
    assert made(out) == 2
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


def test_a_network_whose_code_has_changed_is_noticed(task: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (task / "own.py").write_text("from torch import nn\nclass Net(nn.Sequential):\n    def __init__(self):\n"
                                 "        super().__init__(nn.Flatten(), nn.Linear(16, 3))\n")  # fmt: skip
    monkeypatch.chdir(task)
    net = nn.Sequential(nn.Flatten(), nn.Linear(16, 3))
    save_file(net.state_dict(), task / "own.safetensors")
    spec = asked(task, network={"model": "own:Net", "checkpoint": "own.safetensors"}, arms=ARMS[:1])
    run(spec, task / "out")
    monkeypatch.setattr(sys.modules["own"].Net, "forward", lambda self, x: 2 * self[1](self[0](x)))
    with pytest.raises(RecipeError, match=r"another run \(different: networks.network\)"):
        run(spec, task / "out")


SLOW = """
import sys, time
from pathlib import Path
from pluria.recipe.run import run
from pluria.recipe.reading import read_recipe

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
    assert 8 <= len(kept(task / "part")) <= 12
    resumed, whole = run(asked(task), task / "part"), run(asked(task), task / "whole")
    assert kept(task / "part") == kept(task / "whole")
    assert without_times(resumed) == without_times(whole)
