import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from pluria.core.errors import CheckpointError
from pluria.store import Checkpoint, read_checkpoint
from store.states import assert_read, written


def model() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Linear(4, 2))


@pytest.fixture
def state() -> dict[str, Tensor]:
    return dict(model().state_dict())


def test_safetensors(tmp_path: Path, state: dict[str, Tensor]) -> None:
    save_file(state, tmp_path / "c.safetensors")
    found = read_checkpoint(tmp_path / "c.safetensors")
    assert_read(found, {name: state[name] for name in sorted(state)})
    assert found.notes == ()


@pytest.mark.parametrize("name", ["c.pt", "c.pth", "c.th", "c.bin", "c.ckpt", "noname"])
@pytest.mark.parametrize("zipped", [True, False])
def test_torch_files(tmp_path: Path, state: dict[str, Tensor], name: str, zipped: bool) -> None:
    torch.save(state, tmp_path / name, _use_new_zipfile_serialization=zipped)
    found = read_checkpoint(tmp_path / name)
    assert_read(found, state)
    assert found.notes == ()


def test_a_safetensors_file_under_another_name(tmp_path: Path, state: dict[str, Tensor]) -> None:
    save_file(state, tmp_path / "pytorch_model.bin")
    assert sorted(read_checkpoint(tmp_path / "pytorch_model.bin").params) == sorted(state)


def test_a_header_that_begins_like_a_pickle(tmp_path: Path) -> None:
    for width in range(40, 90):
        save_file({"w" * width: torch.ones(1)}, tmp_path / "c")
        if (tmp_path / "c").read_bytes()[0] == 0x80:
            break
    else:
        pytest.fail("no header had the length wanted")
    assert read_checkpoint(tmp_path / "c").params


def test_prefixes_are_taken_off_and_said(tmp_path: Path, state: dict[str, Tensor]) -> None:
    path = written(tmp_path, {f"module._orig_mod.{name}": value for name, value in state.items()})
    found = read_checkpoint(path)
    assert_read(found, state)
    assert found.notes == (
        "took the prefix 'module.' off every name",
        "took the prefix '_orig_mod.' off every name",
    )


def test_a_prefix_that_not_all_have_stays(tmp_path: Path, state: dict[str, Tensor]) -> None:
    mixed = {f"module.{name}": value for name, value in state.items()} | {"own": torch.ones(1)}
    assert_read(read_checkpoint(written(tmp_path, mixed)), mixed)


@pytest.mark.parametrize("level", ["state_dict", "model", "model_state_dict", "state_dict_ema"])
def test_levels_are_opened_and_said(tmp_path: Path, state: dict[str, Tensor], level: str) -> None:
    path = written(tmp_path, {"epoch": 3, "best": torch.tensor(93.1), level: state, "optimizer": {"lr": 0.1}})
    found = read_checkpoint(path)
    assert_read(found, state)
    assert found.notes == (f"took the level '{level}'; left out epoch, best, optimizer",)


def test_levels_in_levels_and_a_level_by_name(tmp_path: Path, state: dict[str, Tensor]) -> None:
    other = {name: value + 1 for name, value in state.items()}
    path = written(tmp_path, {"model": {"state_dict": state}, "state_dict_ema": other, "teacher": other})
    assert_read(read_checkpoint(written(tmp_path, {"model": {"state_dict": state}})), state)
    path = written(tmp_path, {"state_dict": state, "state_dict_ema": other, "teacher": other})
    assert_read(read_checkpoint(path), state)
    assert read_checkpoint(path).notes == ("took the level 'state_dict'; left out state_dict_ema, teacher",)
    assert_read(read_checkpoint(path, level="state_dict_ema"), other)
    assert_read(read_checkpoint(path, level="teacher"), other)
    with pytest.raises(CheckpointError, match="no level 'student' to read; there are state_dict, state_dict_ema"):
        read_checkpoint(path, level="student")


def test_a_mapping_that_holds_itself_ends(tmp_path: Path) -> None:
    endless: dict[str, Any] = {"w": torch.ones(1)}
    endless["model"] = endless
    assert list(read_checkpoint(written(tmp_path, endless)).params) == ["w"]


def test_what_is_no_tensor_is_left_out_and_said(tmp_path: Path, state: dict[str, Tensor]) -> None:
    found = read_checkpoint(written(tmp_path, {**state, "epoch": 3, "name": "net"}))
    assert_read(found, state)
    assert found.notes == ("left out what is no tensor: epoch, name",)


def test_tied_tensors_are_one_object(tmp_path: Path) -> None:
    net = nn.ModuleList([nn.Embedding(6, 4), nn.Linear(4, 6)])
    net[1].weight = net[0].weight
    params = read_checkpoint(written(tmp_path, net.state_dict())).params
    assert params["0.weight"] is params["1.weight"]
    assert params["0.weight"] is not params["1.bias"]


def test_empty_tensors_and_views_are_not_tied(tmp_path: Path) -> None:
    whole = torch.arange(6.0)
    views = {"a": torch.empty(0), "b": torch.empty(0), "c": whole, "d": whole[:3], "e": whole.view(2, 3)}
    params = read_checkpoint(written(tmp_path, views)).params
    assert len({id(value) for value in params.values()}) == 5
    assert_read(Checkpoint(params, ()), views)


def test_an_index_of_shards(tmp_path: Path, state: dict[str, Tensor]) -> None:
    names = list(state)
    for folder, suffix in (("safe", "safetensors"), ("bin", "bin")):
        place, stem = tmp_path / folder, "model" if suffix == "safetensors" else "pytorch_model"
        place.mkdir()
        shards = {f"{stem}-0000{i + 1}-of-00002.{suffix}": names[i::2] for i in range(2)}
        for shard, held in shards.items():
            part = {name: state[name] for name in held}
            save_file(part, place / shard) if suffix == "safetensors" else torch.save(part, place / shard)
        index = {"metadata": {}, "weight_map": {name: shard for shard, held in shards.items() for name in held}}
        (place / f"{stem}.{suffix}.index.json").write_text(json.dumps(index))
        for path in (place, place / f"{stem}.{suffix}.index.json"):
            found = read_checkpoint(path)
            assert sorted(found.params) == sorted(state)
            assert all(torch.equal(found.params[name], state[name]) for name in state)
        (place / next(iter(shards))).unlink()
        with pytest.raises(CheckpointError, match=r"the shard .*00001-of-00002.* is missing. Download it"):
            read_checkpoint(place)


def index(tmp_path: Path, content: object) -> Path:
    path = tmp_path / "model.safetensors.index.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "this is not JSON"),
        ("[]", "this JSON is no mapping"),
        ({}, "the index has no `weight_map`"),
        ({"weight_map": {"a": 1}}, "the index has no `weight_map` from names to files"),
        ({"weight_map": {"a": "../a.safetensors"}}, "lies outside the index's own folder"),
        ({"weight_map": {"a": "/etc/passwd"}}, "lies outside the index's own folder"),
        ({"weight_map": {"a": "s", "b": "s"}}, "the shards lack 1 tensors of the index: b"),
        ({"weight_map": {}}, "the checkpoint holds no tensors"),
    ],
)
def test_malformed_indices(tmp_path: Path, content: object, message: str) -> None:
    save_file({"a": torch.ones(1)}, tmp_path / "s")
    with pytest.raises(CheckpointError, match=message):
        read_checkpoint(index(tmp_path, content))


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin"])
def test_a_folder(tmp_path: Path, name: str) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    save_file({"a": torch.ones(1)}, tmp_path / name)
    assert read_checkpoint(tmp_path).notes == (f"read {name}",)


def test_a_folder_without_a_checkpoint_says_what_lies_there(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"it has nothing. Give the file itself"):
        read_checkpoint(tmp_path)
    for number in range(10):
        (tmp_path / f"{number}.txt").touch()
    with pytest.raises(CheckpointError, match=r"none of model.safetensors, .*it has 0.txt, .*7.txt and 2 more"):
        read_checkpoint(tmp_path)


def test_a_real_checkpoint(real_data: Path) -> None:
    found = read_checkpoint(real_data / "cifar10_resnets" / "resnet20.safetensors")
    assert found.params["conv1.weight"].shape == (16, 3, 3, 3)
    assert found.notes == ()
    trained = [
        name for name in found.params if not name.endswith(("running_mean", "running_var", "num_batches_tracked"))
    ]
    assert sum(found.params[name].numel() for name in trained) == 269722  # the published count of this network
