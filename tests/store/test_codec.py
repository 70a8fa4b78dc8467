from pathlib import Path

import pytest
import torch
from torch import nn

from core.families import MAKERS, normal
from pluria.align import refresh
from pluria.core.coded import pack_members, pack_planes
from pluria.core.ensemble import Ensemble, join, single, stack
from pluria.core.family import Family, Shared
from pluria.core.rounded import Rounded
from pluria.numbers.format import FORMATS, number_format
from pluria.numbers.grid import layout
from pluria.numbers.key import Key
from pluria.sample import dropout, gaussian, low_precision, nearest, path, plane
from pluria.store import load, load_all, save
from pluria.store.codec import encode
from store.saved import assert_kept, assert_same, network


@pytest.mark.parametrize("name", MAKERS)
def test_every_family_comes_back(tmp_path: Path, name: str) -> None:
    make, members = MAKERS[name]
    assert_kept(tmp_path, Ensemble({"conv.weight": make()}, tuple(members)))


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("coupling", ["independent", "antithetic", "stratified"])
def test_low_precision_in_every_format(tmp_path: Path, format: str, coupling: str) -> None:
    ensemble = low_precision(network(), format=format, members=3, coupling=coupling, granularity=4, key=5)
    assert_kept(tmp_path, ensemble)


BASES = {
    "one network": lambda: single(network()),
    "kept ones": lambda: stack([network(0), network(1), network(2)]),
    "a part of kept ones": lambda: stack([network(0), network(1), network(2)]).take([2, 0]),
    "a union": lambda: join(single(network()), stack([network(1), network(2)])),
    "draws": lambda: gaussian(low_precision(network(), format="int3"), key=1).first(3),
    "a line": lambda: path([network(0), network(1)], steps=3),
    "rounded ones": lambda: low_precision(network(), format="int8", members=2),
}


@pytest.mark.parametrize("base", BASES)
@pytest.mark.parametrize("sampler", [low_precision, nearest])
def test_low_precision_on_top_of_others(tmp_path: Path, base: str, sampler: object) -> None:
    ensemble = sampler(BASES[base](), format="int4", **({"members": 5, "key": 2} if sampler is low_precision else {}))
    assert_kept(tmp_path, ensemble)


def test_refreshed_members(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)).eval()
    ensemble = refresh(model, low_precision(model, members=3, format="int3"), [normal(2, 3, 5, 5)])
    assert_kept(tmp_path, ensemble)
    assert_kept(tmp_path, ensemble.take([2, 0]))


def test_dropout_members(tmp_path: Path) -> None:
    _, ensemble = dropout(nn.Sequential(nn.Linear(3, 3), nn.Dropout(), nn.Linear(3, 2), nn.Dropout()), members=4)
    assert_kept(tmp_path, ensemble)


def test_a_plane(tmp_path: Path) -> None:
    assert_kept(tmp_path, plane(network(0), network(1), network(2), points=3).ensemble)


def test_unions_of_unlike_ensembles_with_weights(tmp_path: Path) -> None:
    low = low_precision(network(), members=3)
    weights = torch.rand(7, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    assert_kept(tmp_path, join(low.take([2, 1]), stack([network(1), network(2)]), low, weights=weights))


def test_weights_keep_every_bit(tmp_path: Path) -> None:
    for seed in range(20):
        weights = torch.rand(seed + 2, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        assert_kept(tmp_path, Ensemble(single(network()).families, tuple(range(seed + 2)), weights))


def test_uniform_weights_are_not_written_out(tmp_path: Path) -> None:
    data, _ = encode({"e": low_precision(network(), members=10)})
    assert data["ensembles"]["e"]["weights"] is None
    assert_kept(tmp_path, low_precision(network(), members=10))


def test_a_thousand_rounded_members_cost_the_base_and_one_key(tmp_path: Path) -> None:
    sizes = []
    for members in (1, 1000):
        save(tmp_path / "e", low_precision(network(), members=members))
        sizes.append((tmp_path / "e").stat().st_size)
    assert sizes[1] - sizes[0] < 5000  # the members' own numbers


def test_tied_names_stay_tied_and_are_kept_once(tmp_path: Path) -> None:
    model = nn.ModuleList([nn.Embedding(6, 4), nn.Linear(4, 6, bias=False)])
    model[1].weight = model[0].weight
    ensemble = low_precision(model, members=2)
    found = assert_kept(tmp_path, ensemble)
    assert found.families["0.weight"] is found.families["1.weight"]
    params = found.params(1)
    assert params["0.weight"] is params["1.weight"]
    assert len(encode({"e": ensemble})[1]) == 1


def test_ensembles_of_one_base_share_its_tensors_and_families(tmp_path: Path) -> None:
    base = network()
    several = {system: low_precision(base, format=system, members=2) for system in ("int4", "int5")}
    save(tmp_path / "e", several)
    found = load_all(tmp_path / "e").ensembles
    assert list(found) == ["int4", "int5"]
    four, five = (ensemble.families["conv.weight"] for ensemble in found.values())
    assert isinstance(four, Rounded)
    assert isinstance(five, Rounded)
    assert four.base.value is five.base.value  # type: ignore[attr-defined]
    assert len(encode(several)[1]) == 3
    for name, ensemble in several.items():
        assert_same(found[name], ensemble)


def test_tensors_that_are_equal_bit_for_bit_are_kept_once(tmp_path: Path) -> None:
    first, zero = normal(3, 4), torch.zeros(4)
    ensembles = {
        "one": single({"w": first, "zero": zero}),
        "copy": single({"w": first.clone(), "zero": -zero, "view": first.flatten(), "double": zero.double()}),
    }
    assert sorted(encode(ensembles)[1]) == [
        "copy/double/value",
        "copy/view/value",
        "copy/zero/value",
        "one/w/value",
        "one/zero/value",
    ]
    save(tmp_path / "e", ensembles)
    for name, ensemble in ensembles.items():
        assert_same(load(tmp_path / "e", name=name), ensemble)


def test_equal_paths_of_different_tensors_do_not_meet(tmp_path: Path) -> None:
    rounded = low_precision({"a": normal(2, 2)}, where=["a"], members=2).families["a"]
    found = assert_kept(tmp_path, Ensemble({"a": rounded, "a/base": Shared(normal(3))}, (0, 1)))
    assert found.params(0)["a/base"].shape == (3,)


def test_views_of_one_tensor_keep_their_own_values(tmp_path: Path) -> None:
    whole = normal(6, 4)
    views = {"w": whole, "t": whole.T, "part": whole[:3], "one": whole[0].expand(5, 4), "later": whole[3:]}
    assert_kept(tmp_path, single(views))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_other_dtypes(tmp_path: Path, dtype: torch.dtype) -> None:
    mixed = {
        "w.weight": normal(4, 6).to(dtype),
        "scalar": torch.tensor(2.5, dtype=dtype),
        "none": torch.empty(0, 3, dtype=dtype),
    }
    mixed["count"] = torch.tensor(2**53 + 1)
    mixed["mask"] = torch.tensor([[True], [False]])
    assert_kept(tmp_path, low_precision(mixed, members=2))
    assert_kept(tmp_path, stack([mixed, mixed]))


def test_infinite_buffers_that_are_not_rounded_are_kept(tmp_path: Path) -> None:
    mask = torch.full((3, 3), float("-inf")).triu(1)
    low = low_precision({"a.weight": normal(2, 2)}, members=2)
    assert_kept(tmp_path, Ensemble({**low.families, "mask": Shared(mask)}, (0, 1)))
    assert_kept(tmp_path, single({"mask": mask}))


def test_parameters_come_back_as_plain_tensors(tmp_path: Path) -> None:
    found = assert_kept(tmp_path, Ensemble({"w": Shared(nn.Parameter(normal(3)))}, (0,)))
    assert not found.params(0)["w"].requires_grad


def test_large_seeds_and_odd_names(tmp_path: Path) -> None:
    name = 'ä "quoted" \\ / \n \0 名'
    family = Rounded(
        Shared(normal(2, 3)), name, number_format("int4"), "channel", layout((2, 3)), Key(2**64 - 1), "stratified"
    )
    assert_kept(tmp_path, Ensemble({name: family}, (0, 2**20)))


def test_members_far_apart_and_twice(tmp_path: Path) -> None:
    assert_kept(tmp_path, Ensemble(low_precision(network()).families, (7, 7, 100000)))


def test_the_inputs_are_untouched(tmp_path: Path) -> None:
    base = network()
    before = {name: value.clone() for name, value in base.items()}
    save(tmp_path / "e", low_precision(base))
    assert all(torch.equal(base[name], value) for name, value in before.items())


def test_packed_forms(tmp_path: Path) -> None:
    family = low_precision(network(), members=3).families["conv.weight"]
    assert isinstance(family, Rounded)
    packs: list[Family] = [pack_members(family, [0, 1, 2]), pack_planes(family, [0, 1, 2])]
    for each in packs:
        assert_kept(tmp_path, Ensemble({"w": each}, (0, 1, 2)))
