"""Networks, checkpoints and devices by the words of a recipe; each mistake ends in one message."""

from __future__ import annotations

import pickle
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from pluria.core.errors import CheckpointError, PluriaError, RecipeError
from pluria.recipe.parts import Data, Network, Training
from pluria.recipe.resolve import built, dataset, device_of, imported, load_network, trained, training_rows
from recipe.tiny import ARGUMENTS, recipe, write_network


def refusal(kind: type[PluriaError], spec: Network) -> str:
    with pytest.raises(kind) as caught:
        load_network(spec)
    return str(caught.value)


def test_a_zoo_network_with_its_checkpoint(tmp_path: Path) -> None:
    wanted = write_network(tmp_path / "net.safetensors").state_dict()
    model, notes = load_network(
        Network(model="small_cnn", arguments=ARGUMENTS, checkpoint=str(tmp_path / "net.safetensors"))
    )
    assert not model.training
    assert notes == []
    assert all(torch.equal(value, wanted[name]) for name, value in model.state_dict().items())


def test_notes_say_what_was_taken_off(tmp_path: Path) -> None:
    state = write_network(tmp_path / "net.safetensors").state_dict()
    torch.save({"state_dict": {f"module.{name}": value for name, value in state.items()}}, tmp_path / "net.pt")
    _, notes = load_network(Network(model="small_cnn", arguments=ARGUMENTS, checkpoint=str(tmp_path / "net.pt")))
    assert any("module." in note for note in notes)


def test_an_old_checkpoint_without_counts_of_batches(tmp_path: Path) -> None:
    write_network(tmp_path / "net.safetensors")
    kept = {n: v for n, v in load_file(tmp_path / "net.safetensors").items() if "num_batches" not in n}
    save_file(kept, tmp_path / "old.safetensors")
    load_network(Network(model="small_cnn", arguments=ARGUMENTS, checkpoint=str(tmp_path / "old.safetensors")))


def test_a_network_of_the_users_own(package: str, tmp_path: Path) -> None:
    model = built(Network(model=f"{package}.net:Net", arguments={"width": 6}))
    save_file(model.state_dict(), tmp_path / "net.safetensors")
    spec = Network(model=f"{package}.net:Net", arguments={"width": 6}, checkpoint="net.safetensors")
    assert load_network(spec)[0].head.out_features == 6


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("{0}.net:Nett", "module '{0}.net' has no 'Nett' to call; did you mean 'Net'? There are: Net, rows, nothing"),
        ("{0}.net:NUMBER", "module '{0}.net' has no 'NUMBER' to call"),
        ("{0}.net:", "module '{0}.net' has no '' to call"),
        ("{0}.nett:Net", "No module named '{0}.nett'. Run from the folder that holds it, or install it"),
        ("no_such_package.net:Net", "No module named 'no_such_package'. Run from the folder"),
        ("{0}.needy:Net", "No module named 'no_such_library_at_all'"),
        ("{0}.broken:Net", "{0}.broken fails with AttributeError: module 'torch' has no attribute"),
        (":Net", "':Net' is no import path; wanted package.module:name"),
        ("..net:Net", "'..net:Net' is no import path"),
        ("{0}.net:nothing", "gives NoneType, not a torch.nn.Module"),
        ("small_cn", "no network 'small_cn': neither a zoo name, an import path"),
        ("small_cn", "did you mean 'small_cnn'?"),
    ],
)
def test_networks_that_do_not_exist(package: str, path: str, said: str) -> None:
    assert said.format(package) in refusal(RecipeError, Network(model=path.format(package), checkpoint="x"))


@pytest.mark.parametrize(
    ("model", "arguments", "said"),
    [
        ("{0}.net:Net", {"wdth": 3}, "unexpected keyword argument 'wdth'"),
        ("{0}.net:Net", {"width": 0}, "width is at least one"),
        ("small_cnn", {"clases": 3}, "unexpected keyword argument 'clases'; it accepts channels=1"),
        ("small_cnn", {"norm": "layer"}, "no norm is called 'layer'"),
        ("mlp", {"inputs": -1, "classes": 2}, "network 'mlp' with arguments {'inputs': -1, 'classes': 2}: "),
        ("mlp", {"inputs": "four", "classes": 2}, "network 'mlp' with arguments"),
    ],
)
def test_arguments_that_do_not_fit(package: str, model: str, arguments: dict[str, Any], said: str) -> None:
    spec = Network(model=model.format(package), arguments=arguments, checkpoint="x")
    assert said in refusal(RecipeError, spec)


def test_a_network_that_nobody_trained() -> None:
    assert "the network has no checkpoint" in refusal(RecipeError, Network(model="small_cnn"))


def test_a_checkpoint_of_another_network_is_refused_with_names_and_shapes(tmp_path: Path) -> None:
    write_network(tmp_path / "net.safetensors", width=8)
    place = str(tmp_path / "net.safetensors")
    said = refusal(CheckpointError, Network(model="small_cnn", arguments=ARGUMENTS, checkpoint=place))
    assert "conv1.weight has (8, 1, 3, 3), wanted (4, 1, 3, 3)" in said
    said = refusal(CheckpointError, Network(model="mlp", arguments={"inputs": 16, "classes": 3}, checkpoint=place))
    assert "linear1.weight" in said
    assert "missing" in said
    assert "conv1.weight" in said
    assert "unknown" in said


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda v: v.fill_(float("nan")), "NaN or Inf"),
        (lambda v: v[:1].fill_(float("inf")), "NaN or Inf"),
        (lambda v: v.to(torch.int8), "quantised already"),
        (lambda v: v.to(torch.float8_e4m3fn), "quantised already"),
    ],
)
def test_checkpoints_that_must_not_be_rounded(tmp_path: Path, spoil: Any, said: str) -> None:
    state = write_network(tmp_path / "net.safetensors").state_dict()
    changed = spoil(state["head.weight"])
    held = {**state, "head.weight": state["head.weight"] if said.startswith("NaN") else changed}
    save_file(held, tmp_path / "bad.safetensors")
    place = str(tmp_path / "bad.safetensors")
    message = refusal(CheckpointError, Network(model="small_cnn", arguments=ARGUMENTS, checkpoint=place))
    assert said in message
    assert "head.weight" in message


class Code:
    """A pickle that would run a command."""

    def __reduce__(self) -> Any:
        return (print, ("this must never be seen",))


def test_pickles_with_code_are_refused_and_not_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "bad.pt").write_bytes(pickle.dumps({"state_dict": Code()}))
    said = refusal(
        CheckpointError, Network(model="small_cnn", arguments=ARGUMENTS, checkpoint=str(tmp_path / "bad.pt"))
    )
    assert "bad.pt" in said
    assert "this must never be seen" not in capsys.readouterr().out


def test_damaged_checkpoints(tmp_path: Path) -> None:
    write_network(tmp_path / "net.safetensors")
    whole = (tmp_path / "net.safetensors").read_bytes()
    (tmp_path / "cut.safetensors").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "empty.safetensors").write_bytes(b"")
    for name, word in (("cut", "cut off"), ("empty", "the file is empty")):
        place = str(tmp_path / f"{name}.safetensors")
        assert word in refusal(CheckpointError, Network(model="small_cnn", arguments=ARGUMENTS, checkpoint=place))


def test_training_follows_its_seed_and_leaves_the_network_alone(task: Path) -> None:
    spec = recipe(
        task,
        network={"model": "small_cnn", "arguments": ARGUMENTS, "train": {"epochs": 2, "batch": 8}},
        training={"reader": "arrays", "arguments": {"path": str(task / "data.npz")}},
    )
    rows, how = training_rows(spec), spec.network.train
    assert rows is not None
    assert how is not None
    model, _ = load_network(spec.network)
    before = {n: v.clone() for n, v in model.state_dict().items()}
    told: list[int] = []
    once = trained(model, how, rows, lambda done, loss: told.append(done)).state_dict()
    again = trained(model, how, rows, lambda done, loss: None).state_dict()
    assert told == [1, 2]
    assert all(torch.equal(once[name], again[name]) for name in once)
    assert all(torch.equal(model.state_dict()[name], before[name]) for name in before)
    assert not torch.equal(once["head.weight"], before["head.weight"])


def test_training_that_diverges_says_so(task: Path) -> None:
    model, _ = load_network(Network(model="small_cnn", arguments=ARGUMENTS, train=Training(epochs=1)))
    rows = dataset(Data(reader="arrays", arguments={"path": str(task / "data.npz")}))
    with pytest.raises(RecipeError, match=r"training diverged at rate 1e\+30: give a smaller network.train.rate"):
        trained(model, Training(epochs=3, rate=1e30), rows, lambda done, loss: None)


def test_devices() -> None:
    assert device_of("cpu") == torch.device("cpu")
    assert isinstance(device_of("auto"), torch.device)
    with pytest.raises(RecipeError, match="unknown device 'gpu'; use auto, cpu, cuda or cuda:1"):
        device_of("gpu")
    if not torch.cuda.is_available():
        with pytest.raises(RecipeError, match=r"device 'cuda' cannot be used here \(.*\); use auto or cpu"):
            device_of("cuda")


def test_the_folder_of_the_command_is_looked_in_once(package: str, tmp_path: Path) -> None:
    for _ in range(2):
        assert callable(imported(f"{package}.net:Net"))
    assert sys.path.count(str(tmp_path)) == 1
