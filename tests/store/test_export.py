import errno
import json
import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from core.families import normal
from pluria.core.ensemble import Ensemble, join, single, stack
from pluria.core.family import Shared
from pluria.core.params import params_of
from pluria.core.rounded import Rounded
from pluria.sample import gaussian, low_precision, nearest, path
from pluria.store import export_member, export_members, load, packed, save
from store.saved import assert_same, bits


def network(seed: int = 0) -> dict[str, Tensor]:
    made = {"conv.weight": normal(4, 3, 2, 2, seed=seed), "bias": normal(4, seed=seed), "n": torch.tensor(seed)}
    return {**made, "half.weight": normal(4, 6, seed=seed + 9).to(torch.bfloat16)}


def tied() -> Ensemble:
    model = nn.ModuleList([nn.Embedding(6, 4), nn.Linear(4, 6, bias=False)])
    model[1].weight = model[0].weight
    return low_precision(model, members=3, format="int3")


def read(path: Path) -> dict[str, Tensor]:
    """As somebody without this package would."""
    return load_file(path) if path.suffix == ".safetensors" else torch.load(path, weights_only=True)


@pytest.mark.parametrize("suffix", [".safetensors", ".pt", ".pth"])
def test_plain_torch_loads_a_member_bit_for_bit(tmp_path: Path, suffix: str) -> None:
    for ensemble in (low_precision(network(), members=3, format="int4"), tied()):
        export_member(ensemble, 2, tmp_path / f"m{suffix}")
        found, wanted = read(tmp_path / f"m{suffix}"), ensemble.params(2)
        assert sorted(found) == sorted(wanted)
        assert all(bits(found[name]) == bits(value) for name, value in wanted.items())


def test_a_model_runs_as_the_member(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
    ensemble = low_precision(model, members=2, format="int3")
    export_member(ensemble, 1, tmp_path / "m.safetensors")
    model.load_state_dict(load_file(tmp_path / "m.safetensors"))
    assert all(torch.equal(value, params_of(model)[name]) for name, value in ensemble.params(1).items())


def test_ties_share_memory_in_torch_files_only(tmp_path: Path) -> None:
    export_member(tied(), 0, tmp_path / "m.pt")
    export_member(tied(), 0, tmp_path / "m.safetensors")
    one, other = read(tmp_path / "m.pt").values()
    assert one.data_ptr() == other.data_ptr()
    one, other = read(tmp_path / "m.safetensors").values()
    assert one.data_ptr() != other.data_ptr()
    assert torch.equal(one, other)


def test_bad_members_and_suffixes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"the ensemble has no member 3; its members are \[0, 1, 2\]"):
        export_member(tied(), 3, tmp_path / "m.pt")
    with pytest.raises(ValueError, match=r"one of \.safetensors, \.pt, \.pth; got '\.onnx'"):
        export_member(tied(), 0, tmp_path / "m.onnx")


@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
def test_a_full_disk_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str) -> None:
    (tmp_path / f"m{suffix}").write_bytes(b"old")

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left on device"):
        export_member(tied(), 0, tmp_path / f"m{suffix}")
    assert (tmp_path / f"m{suffix}").read_bytes() == b"old"
    assert len(os.listdir(tmp_path)) == 1


def test_all_members_with_their_weights(tmp_path: Path) -> None:
    ensemble = Ensemble(tied().families, (4, 0, 4), torch.tensor([0.5, 0.25, 0.25]))
    paths = export_members(ensemble, tmp_path / "new" / "folder", suffix=".pt")
    assert [path.name for path in paths] == ["member-0004.pt", "member-0000.pt"]
    assert json.loads((tmp_path / "new" / "folder" / "members.json").read_text()) == {
        "member-0004.pt": 0.75,
        "member-0000.pt": 0.25,
    }
    for file, member in zip(paths, (4, 0), strict=True):
        assert all(torch.equal(read(file)[name], value) for name, value in ensemble.params(member).items())


def low(**options: object) -> Ensemble:
    return low_precision(network(), **{"members": 5, "format": "int4", "key": 3, **options})  # type: ignore[arg-type]


PACKED = {
    "all members": lambda: low(),
    "some members": lambda: low().take([4, 1]),
    "weighted": lambda: low().reweight(torch.tensor([5.0, 4.0, 3.0, 2.0, 1.0])),
    "asymmetric, in groups": lambda: low(format="int3-asymmetric", granularity=3),
    "one scale": lambda: low(granularity="tensor"),
    "nf4": lambda: low(format="nf4"),
    "fp8": lambda: low(format="fp8-e5m2", coupling="independent"),
    "bf16": lambda: low(format="bf16", coupling="antithetic"),
    "a union": lambda: join(low().take([3, 0]), low(format="int6", key=9)),
    "a union in another order": lambda: join(low().first(2), low(key=9)).take([3, 0, 5, 1]),
    "a union of a union": lambda: join(join(low().first(2), single(network(1))), low(key=4)).take([4, 2, 0]),
    "partly rounded unions": lambda: join(low().first(2), stack([network(1), network(2)])).take([3, 1, 0]),
    "tied": tied,
}
ONE_BY_ONE = {
    "nearest": lambda: nearest(network(), format="int4"),
    "several bases": lambda: low_precision(stack([network(0), network(1)]), members=5, format="int4"),
    "a line of bases": lambda: low_precision(path([network(0), network(1)], steps=3), members=4, format="int4"),
    "draws as bases": lambda: low_precision(gaussian(low()).first(2), members=4, format="int4"),
}


@pytest.mark.parametrize("form", ["members", "planes"])
@pytest.mark.parametrize("name", PACKED)
def test_packed_members_are_the_same_bit_for_bit(tmp_path: Path, name: str, form: str) -> None:
    ensemble = PACKED[name]()
    assert_renumbered(packed(ensemble, form=form), ensemble, tmp_path)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ONE_BY_ONE)
def test_members_that_share_no_floor_are_packed_one_by_one(tmp_path: Path, name: str) -> None:
    assert_renumbered(packed(ONE_BY_ONE[name]()), ONE_BY_ONE[name](), tmp_path)
    with pytest.raises(ValueError, match=r"tensor 'conv.weight': bit planes need stochastic rounding of one base"):
        packed(ONE_BY_ONE[name](), form="planes")


def assert_renumbered(found: Ensemble, wanted: Ensemble, tmp_path: Path) -> None:
    assert found.members == tuple(range(len(wanted)))
    assert torch.equal(found.weights, wanted.weights)
    for one, other in zip(found, wanted, strict=True):
        assert list(one) == list(other)
        assert all(bits(one[name]) == bits(value) for name, value in other.items())
    assert not any(isinstance(family, Rounded) for family in found.families.values())
    save(tmp_path / "packed.pluria", found)
    assert_same(load(tmp_path / "packed.pluria"), found)


def test_what_packed_forms_take() -> None:
    """4 bits for each of 8 members, against 4 shared bits and one for each: 32 and 12 bits a weight, and the scales."""
    ensemble = low_precision({"w.weight": normal(10, 64)}, members=8, format="int4")
    assert packed(ensemble).bits().file == 640 * 32 + 10 * 32
    assert packed(ensemble, form="planes").bits().file == 640 * 12 + 10 * 32


def test_files_take_what_is_said(tmp_path: Path) -> None:
    ensemble = low_precision({"w.weight": normal(100, 640)}, members=8, format="int4")
    for form in ("members", "planes"):
        save(tmp_path / "e", packed(ensemble, form=form))  # type: ignore[arg-type]
        said = packed(ensemble, form=form).bits().file / 8  # type: ignore[arg-type]
        assert said < (tmp_path / "e").stat().st_size < said + 2000


def test_tied_names_stay_tied() -> None:
    families = list(packed(tied()).families.values())
    assert families[0] is families[1]


def test_shared_tensors_are_not_copied() -> None:
    ensemble = low()
    found = packed(ensemble)
    assert found.families["bias"] is ensemble.families["bias"]
    assert isinstance(found.families["bias"], Shared)


def test_nothing_rounded_and_unknown_forms_are_refused() -> None:
    with pytest.raises(ValueError, match="no tensor of the ensemble is rounded"):
        packed(single(network()))
    with pytest.raises(ValueError, match="'members' or 'planes'; got 'bits'"):
        packed(tied(), form="bits")  # type: ignore[arg-type]
