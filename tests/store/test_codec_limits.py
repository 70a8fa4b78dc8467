"""What the codec writes down, what it cannot read back and so refuses to write, and how deep things may lie."""

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from core.families import normal
from pluria.core.ensemble import Ensemble
from pluria.core.errors import FileFormatError
from pluria.core.family import Affine, Family, Joined, Shared, Stacked
from pluria.core.rounded import Rounded
from pluria.numbers.format import number_format
from pluria.numbers.grid import layout
from pluria.numbers.key import Key
from pluria.sample import low_precision
from pluria.store import save
from pluria.store.codec import DEPTH, HINTS, KINDS, decode, encode
from store.saved import assert_kept, assert_same, network


def test_every_kind_has_its_fields_written_down() -> None:
    """A field that is added changes the format: its version must rise and this list with it."""
    assert {name: list(hints) for name, hints in HINTS.items()} == {
        "shared": ["value"],
        "stacked": ["values", "index"],
        "affine": ["origin", "directions", "coordinates"],
        "joined": ["parts", "ids"],
        "rounded": ["base", "name", "format", "granularity", "layout", "key", "coupling", "bases"],
        "coded": ["grids", "codes", "planes", "dims", "kind"],
        "gaussian": ["mean", "std", "name", "key", "factors"],
        "masked": ["base", "masks"],
        "factored": ["base", "left", "right", "op"],
        "integer": ["bits", "symmetric"],
        "minifloat": ["name", "exponent", "mantissa", "largest"],
        "normalfloat": ["name", "bits"],
        "grid": ["format", "layout", "group", "scale", "zero"],
        "layout": ["blocks", "outer", "channels", "inner"],
        "key": ["seed"],
    }
    assert all(dataclasses.is_dataclass(made) for made in KINDS.values())


def test_data_survive_json() -> None:
    data, tensors = encode({"e": low_precision(network(), members=2)})
    assert_same(decode(json.loads(json.dumps(data)), tensors)["e"], low_precision(network(), members=2))


def test_a_family_of_an_unknown_class_is_refused() -> None:
    @dataclass(frozen=True)
    class Mine(Shared):
        pass

    with pytest.raises(TypeError, match="e/w is Mine, which files do not hold; they hold shared, stacked"):
        encode({"e": Ensemble({"w": Mine(normal(2))}, (0,))})


UNREADABLE = {
    "a member between kept ones": (
        lambda: Ensemble({"w": Stacked(normal(2, 3), (1, 5))}, (1, 3, 5)),
        "e/w cannot be saved: member 3 does not exist; the members are [1, 5]",
    ),
    "NaN that is rounded": (
        lambda: Ensemble(
            {
                "w": Rounded(
                    Shared(normal(2, 3) / 0), "w", number_format("int4"), "channel", layout((2, 3)), Key(), None
                )
            },
            (0,),
        ),
        "NaN or Inf among numbers that are rounded",
    ),
    "directions of another shape": (
        lambda: Ensemble({"w": Affine(normal(3), normal(2, 4), torch.zeros(5, 2))}, (0,)),
        "directions have shape (2, 4); wanted (2, 3)",
    ),
    "sixty-five levels": (lambda: Ensemble({"w": nested(DEPTH + 1)}, (0,)), "nested more than 64 deep"),
    "a thousand levels": (lambda: Ensemble({"w": nested(250)}, (0,)), "nested more than 64 deep"),
}


def nested(levels: int) -> Family:
    family: Family = Shared(normal(2))
    for _ in range(levels - 1):
        family = Joined((family,), ((0,),))
    return family


@pytest.mark.parametrize("name", UNREADABLE)
def test_what_could_not_be_read_is_not_written(tmp_path: Path, name: str) -> None:
    make, message = UNREADABLE[name]
    with pytest.raises(ValueError) as caught:
        save(tmp_path / "e", {"e": make()})
    assert message in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_the_deepest_nesting_is_kept(tmp_path: Path) -> None:
    assert_kept(tmp_path, Ensemble({"w": nested(DEPTH)}, (0,)))


def test_many_members_in_a_row_are_written_as_their_number(tmp_path: Path) -> None:
    made = low_precision(network(), members=65)
    data, tensors = encode({"one": made, "few": made.first(64), "other": made.take([*range(64, -1, -1)])})
    written = {name: entry["members"] for name, entry in data["ensembles"].items()}
    assert written == {"one": 65, "few": list(range(64)), "other": list(range(64, -1, -1))}
    assert {name: found.members for name, found in decode(data, tensors).items()} == {
        "one": made.members, "few": tuple(range(64)), "other": tuple(range(64, -1, -1))
    }  # fmt: skip
    for wrong in (0, -1, 64, 10_000_001):
        data["ensembles"]["one"]["members"] = wrong
        with pytest.raises(FileFormatError, match=rf"members is {wrong}; a number of members in a row lies in 65"):
            decode(data, tensors)
