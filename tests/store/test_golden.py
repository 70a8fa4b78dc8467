"""Golden files are kept byte for byte: what is written today must be these bytes, and they must give these members."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from golden.make import ABOUT, golden, members
from pluria.store import load_all, save
from store.saved import assert_same, bits

FOLDER = Path(__file__).parents[1] / "golden"
TITLES = list(golden())


@pytest.mark.parametrize("title", TITLES)
def test_the_same_bytes_are_written(tmp_path: Path, title: str) -> None:
    save(tmp_path / "new.pluria", golden()[title], about=ABOUT)
    assert (tmp_path / "new.pluria").read_bytes() == (FOLDER / f"{title}.pluria").read_bytes()


@pytest.mark.parametrize("title", TITLES)
def test_the_kept_file_gives_the_kept_members(title: str) -> None:
    loaded = load_all(FOLDER / f"{title}.pluria")
    assert loaded.about == ABOUT
    found, wanted = members(dict(loaded.ensembles)), load_file(FOLDER / f"{title}.members.safetensors")
    assert sorted(found) == sorted(wanted)
    for name, value in wanted.items():
        if name.startswith(
            "cloud/"
        ):  # normals agree within rounding, not bit for bit, where the mathematics library differs
            torch.testing.assert_close(found[name], value)
        else:
            assert bits(found[name]) == bits(value), name


@pytest.mark.parametrize("title", TITLES)
def test_the_kept_file_gives_the_ensembles_it_was_made_of(title: str) -> None:
    loaded, made = load_all(FOLDER / f"{title}.pluria").ensembles, golden()[title]
    assert list(loaded) == list(made)
    for name, ensemble in made.items():
        assert_same(loaded[name], ensemble)


@pytest.mark.parametrize("title", TITLES)
def test_saving_what_was_loaded_gives_the_same_bytes(tmp_path: Path, title: str) -> None:
    loaded = load_all(FOLDER / f"{title}.pluria")
    save(tmp_path / "again.pluria", loaded.ensembles, about=loaded.about)
    assert (tmp_path / "again.pluria").read_bytes() == (FOLDER / f"{title}.pluria").read_bytes()


def test_every_golden_file_is_made_here() -> None:
    assert {path.stem for path in FOLDER.glob("*.pluria")} == set(TITLES)
