"""Files of ensembles: what is kept, and what their envelope refuses."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pluria.core.ensemble import single
from pluria.core.errors import FileFormatError
from pluria.sample import low_precision
from pluria.store import load, load_all, save
from pluria.store.checkpoint import read_checkpoint
from pluria.store.codec import HINTS
from pluria.store.tensors import DTYPES, write_tensors
from store.conftest import PARAMS, ensembles
from store.saved import assert_same, parts, rewrite


def test_one_ensemble(tmp_path: Path) -> None:
    save(tmp_path / "e.pluria", single(PARAMS))
    assert_same(load(tmp_path / "e.pluria"), single(PARAMS))
    assert list(load_all(tmp_path / "e.pluria").ensembles) == ["ensemble"]
    assert load_all(tmp_path / "e.pluria").about == {}


def test_several_ensembles_by_name(file: Path) -> None:
    found = load_all(file)
    assert found.about == {"labels": ["a", "b"]}
    for name, ensemble in ensembles().items():
        assert_same(found.ensembles[name], ensemble)
    assert_same(load(file, name="kept"), ensembles()["kept"])
    with pytest.raises(ValueError, match=r"holds 9 ensembles; give the name of one: low, kept, packed"):
        load(file)
    with pytest.raises(ValueError, match=r"has no ensemble 'lower'; it has low, kept"):
        load(file, name="lower")


def test_the_same_ensembles_give_the_same_bytes(file: Path, tmp_path: Path) -> None:
    save(tmp_path / "again", ensembles(), about={"labels": ["a", "b"]})
    assert (tmp_path / "again").read_bytes() == file.read_bytes()
    loaded = load_all(file)
    save(tmp_path / "again", loaded.ensembles, about=loaded.about)
    assert (tmp_path / "again").read_bytes() == file.read_bytes()


def test_nothing_to_save_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="by name, at least one"):
        save(tmp_path / "e", {})
    with pytest.raises(ValueError, match="by name, at least one"):
        save(tmp_path / "e", {"": single(PARAMS)})


@pytest.mark.parametrize("about", [{"k": float("nan")}, {"k": {1, 2}}, {"k": torch.ones(2)}, {"k": np.float32(1)}])
def test_about_must_be_json(tmp_path: Path, about: dict[str, Any]) -> None:
    with pytest.raises(TypeError, match="`about` holds what JSON does not"):
        save(tmp_path / "e", single(PARAMS), about=about)


@pytest.mark.parametrize("about", [{"k": (1, 2)}, {1: "k"}, {"k": {0: "cat"}}])
def test_about_that_json_would_change_is_refused(tmp_path: Path, about: dict[Any, Any]) -> None:
    with pytest.raises(TypeError, match="`about` would change as JSON"):
        save(tmp_path / "e", single(PARAMS), about=about)


def test_a_file_that_is_only_written_anew_is_read(file: Path) -> None:
    rewrite(file, lambda content, tensors: None)
    assert_same(load(file, name="low"), ensembles()["low"])


def texts(change: Callable[[dict[str, str]], object]) -> Callable[[Path], None]:
    def apply(path: Path) -> None:
        found, tensors = parts(path)
        change(found)
        write_tensors(path, tensors, found)

    return apply


def digested(content: str) -> Callable[[Path], None]:
    from pluria.store.file import _digest

    def apply(path: Path) -> None:
        found, tensors = parts(path)
        write_tensors(path, tensors, {**found, "content": content, "digest": _digest(content, tensors)})

    return apply


ENVELOPE: dict[str, tuple[Callable[[Path], None], str]] = {
    "newer": (
        texts(lambda t: t.update(version="2")),
        "format version 2 and this Pluria reads up to 1. Install a newer one",
    ),
    "version zero": (texts(lambda t: t.update(version="0")), "the format version is '0'"),
    "version of words": (texts(lambda t: t.update(version="one")), "the format version is 'one'"),
    "no version": (texts(lambda t: t.pop("version")), "the format version is ''"),
    "no content": (texts(lambda t: t.pop("content")), "the metadata are ['digest', 'format', 'version']"),
    "more metadata": (texts(lambda t: t.update(extra="1")), "the metadata are ['content', 'digest', 'extra'"),
    "another format": (
        texts(lambda t: t.update(format="pt")),
        "is no saved ensemble. If it is a checkpoint, use `read_checkpoint`",
    ),
    "no metadata": (texts(lambda t: t.clear()), "is no saved ensemble"),
    "another digest": (texts(lambda t: t.update(digest="0" * 64)), "changed or damaged since"),
    "changed content": (texts(lambda t: t.update(content=t["content"] + " ")), "changed or damaged since"),
    "no JSON": (digested("{"), "the content is not JSON"),
    "NaN": (digested('{"families": NaN}'), "NaN is no JSON number"),
    "deep JSON": (digested("[" * 100000), "the content is not JSON"),
    "long number": (digested("9" * 5000), "the content is not JSON"),
    "a list": (digested("[]"), "the content is []; wanted a mapping"),
    "empty ensembles": (digested('{"ensembles": {}, "families": [], "about": {}}'), "tensors belong to no family"),
}


@pytest.mark.parametrize("name", ENVELOPE)
def test_a_malformed_envelope_says_what_is_wrong(file: Path, name: str) -> None:
    change, message = ENVELOPE[name]
    change(file)
    with pytest.raises(FileFormatError) as caught:
        load_all(file)
    assert message in str(caught.value)
    assert str(file) in str(caught.value)


def test_a_file_without_ensembles_is_refused(tmp_path: Path) -> None:
    save(tmp_path / "e", single({"w": torch.ones(1)}))
    rewrite(tmp_path / "e", lambda content, tensors: (content.update(ensembles={}, families=[]), tensors.clear()))
    with pytest.raises(FileFormatError, match="the content has no ensemble"):
        load(tmp_path / "e")


def test_a_dtype_that_the_format_does_not_have_is_refused(tmp_path: Path) -> None:
    save(tmp_path / "e", single({"w": torch.ones(4, dtype=torch.uint8)}))
    data = (tmp_path / "e").read_bytes().replace(b'"U8","shape":[4]', b'"F4","shape":[8]')
    (tmp_path / "e").write_bytes(data)
    with pytest.raises(FileFormatError):
        load(tmp_path / "e")


def test_a_changed_tensor_is_met_and_can_be_read_all_the_same(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    with pytest.raises(FileFormatError, match="does not have the digest it was written with"):
        load(file, name="low")
    assert_same(load(file, name="low", verify=False), ensembles()["low"])


def test_no_changed_byte_goes_unnoticed(tmp_path: Path) -> None:
    """Each byte in turn is changed: the file is refused, or (padding, spelling) gives the same ensemble."""
    wanted = low_precision({"w.weight": torch.arange(4.0).view(2, 2)}, members=2)
    save(tmp_path / "e", wanted)
    data, accepted = (tmp_path / "e").read_bytes(), 0
    for place in range(len(data)):
        changed = bytearray(data)
        changed[place] ^= 1
        (tmp_path / "e").write_bytes(changed)
        try:
            found = load(tmp_path / "e")
        except FileFormatError:
            continue
        accepted += 1
        assert_same(found, wanted)
    assert accepted < 10


@pytest.mark.parametrize("share", [0.0, 0.001, 0.3, 0.9, 0.999])
def test_a_file_that_is_cut_off_is_refused(file: Path, share: float) -> None:
    data = file.read_bytes()
    file.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(FileFormatError, match=r"empty|cut off"):
        load_all(file)


def test_other_files_are_told_apart(tmp_path: Path) -> None:
    torch.save(PARAMS, tmp_path / "c.pt")
    with pytest.raises(FileFormatError, match="this is a torch file"):
        load(tmp_path / "c.pt")
    with pytest.raises(FileNotFoundError):
        load(tmp_path / "absent.pluria")


def test_a_real_network(tmp_path: Path, real_data: Path) -> None:
    checkpoint = read_checkpoint(real_data / "cifar10_resnets" / "resnet20.safetensors")
    ensemble = low_precision(checkpoint.params, members=16, format="int4")
    save(tmp_path / "e.pluria", ensemble.take([0, 7]))
    assert_same(load(tmp_path / "e.pluria"), ensemble.take([0, 7]))
    held = ensemble.bits().file / 8
    assert held < (tmp_path / "e.pluria").stat().st_size < 1.1 * held


def test_the_format_page_names_every_kind_with_its_fields() -> None:
    page = (Path(__file__).parents[2] / "docs" / "format.md").read_text(encoding="utf-8")
    rows = {row.split("`")[1]: row for row in page.splitlines() if row.startswith("| `")}
    for kind, hints in HINTS.items():
        written = [word for word in re.sub(r"\([^)]*\)|\[[^]]*\]| or null", "", rows[kind].split("|")[2]).split(", ")]
        assert [word.strip() for word in written] == list(hints)
    assert page.split("Dtypes: ")[1].split(".\n")[0].split() == list(DTYPES.values())
