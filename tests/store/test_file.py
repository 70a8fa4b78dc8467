import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from golden.make import golden
from pluria.core.ensemble import Ensemble, join, single, stack
from pluria.core.errors import FileFormatError
from pluria.sample import low_precision
from pluria.store import load, load_all, packed, save
from pluria.store.checkpoint import read_checkpoint
from pluria.store.codec import HINTS
from pluria.store.tensors import DTYPES, write_tensors
from store.saved import assert_same, parts, rewrite

PARAMS = {"w.weight": torch.arange(12.0).view(3, 4) / 8, "b": torch.ones(3)}


def ensembles() -> dict[str, Ensemble]:
    """Every kind of family, in a file small enough to change by hand."""
    made = golden()
    low = low_precision(PARAMS, members=3, format="int4", granularity=2)
    kept = stack([PARAMS, PARAMS]).take([1, 0])
    return {
        "low": low,
        "kept": kept,
        "packed": packed(low_precision(PARAMS, members=3, format="int4-asymmetric")),
        "planes": packed(low, form="planes"),
        "line": made["families"]["line"],
        "cloud": made["families"]["cloud"],
        "union": join(low.first(1), kept, weights=torch.tensor([2.0, 1.0, 1.0])),
        "nf4": low_precision(PARAMS, members=2, format="nf4"),
        "fp8": low_precision(PARAMS, members=2, format="fp8-e4m3"),
    }


@pytest.fixture(scope="session")
def master(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("master") / "e.pluria"
    save(path, ensembles(), about={"labels": ["a", "b"]})
    return path.read_bytes()


@pytest.fixture
def file(tmp_path: Path, master: bytes) -> Path:
    (tmp_path / "e.pluria").write_bytes(master)
    return tmp_path / "e.pluria"


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


Content = Any
Change = Callable[[Content, dict[str, torch.Tensor]], object]


def find(content: Content, kind: str, number: int = 0) -> dict[str, Any]:
    """The fields of the first (or other) family of a kind."""
    return [entry[kind] for entry in content["families"] if kind in entry][number]  # type: ignore[no-any-return]


def put(kind: str, field: str, value: object, number: int = 0) -> Change:
    return lambda content, _: find(content, kind, number).__setitem__(field, value)


def tensor(kind: str, field: str, change: Callable[[torch.Tensor], torch.Tensor], number: int = 0) -> Change:
    def swap(content: Content, tensors: dict[str, torch.Tensor]) -> None:
        name = find(content, kind, number)[field]["tensor"]
        tensors[name] = change(tensors[name])

    return swap


def entry(name: str, field: str, value: object) -> Change:
    return lambda content, _: content["ensembles"][name].__setitem__(field, value)


def grid(field: str, value: object, number: int = 0) -> Change:
    return lambda content, _: find(content, "coded", number)["grids"][0]["grid"].__setitem__(field, value)


def grid_tensor(field: str, change: Callable[[torch.Tensor], torch.Tensor]) -> Change:
    def swap(content: Content, tensors: dict[str, torch.Tensor]) -> None:
        name = find(content, "coded")["grids"][0]["grid"][field]["tensor"]
        tensors[name] = change(tensors[name])

    return swap


def poisoned(value: torch.Tensor) -> torch.Tensor:
    return torch.where(torch.arange(value.numel()).view(value.shape) == 1, float("nan"), value)


LAYOUT = {"layout": {"blocks": 1, "outer": 1, "channels": 3, "inner": 5}}
MALFORMED: dict[str, tuple[Change, str]] = {
    # the content as a whole
    "no families": (lambda c, _: c.pop("families"), "the content lacks the fields ['families']"),
    "more than there is": (lambda c, _: c.update(extra=1), "has unknown fields ['extra']"),
    "families of no list": (lambda c, _: c.update(families={}), "families is {}; wanted a list"),
    "no ensembles": (lambda c, _: c.update(ensembles=[]), "ensembles is []; wanted a mapping"),
    "about of no mapping": (lambda c, _: c.update(about=[]), "`about` is no mapping"),
    # kinds and fields
    "unknown kind": (lambda c, _: c["families"].__setitem__(0, {"os.system": {}}), "of the unknown kind ['os.system']"),
    "two kinds": (lambda c, _: c["families"][0].update(key={}), "of the unknown kind ['shared', 'key']"),
    "a part in place of a family": (
        lambda c, _: c["families"].__setitem__(0, {"key": {"seed": 1}}),
        "unknown kind ['key']",
    ),
    "family of no mapping": (
        lambda c, _: c["families"].__setitem__(0, "shared"),
        "families[0] is 'shared'; wanted a mapping",
    ),
    "missing field": (lambda c, _: find(c, "rounded").pop("name"), "rounded lacks the fields ['name']"),
    "unknown field": (put("rounded", "_grids", {}), "has unknown fields ['_grids']"),
    "text for a number": (put("stacked", "index", "abc"), "stacked.index is 'abc'; wanted a list"),
    "number for a text": (put("rounded", "name", 3), "rounded.name is 3; wanted a text"),
    "truth for a number": (put("stacked", "index", [True, 0]), "index[0] is True; wanted a whole number"),
    "null for a tensor": (put("shared", "value", None), "shared.value is None; wanted a mapping"),
    "a decimal seed": (put("rounded", "key", {"key": {"seed": 1.5}}), "key.seed is 1.5; wanted a whole number"),
    "a seed too large": (put("rounded", "key", {"key": {"seed": 2**64}}), "a seed lies in 0..2^64-1"),
    "unknown coupling": (put("rounded", "coupling", "random"), "is 'random'; wanted one of independent, antithetic"),
    "unknown granularity": (put("rounded", "granularity", "row"), "is 'row'; wanted one of tensor, channel"),
    "unknown format": (put("rounded", "format", {"posit": {"bits": 8}}), "unknown kind ['posit']"),
    # tables
    "tensor missing": (lambda c, t: t.pop("low/b/value"), "needs the tensor 'low/b/value', which is not in the file"),
    "tensor without a name": (put("shared", "value", {"tensor": 3}), "needs the tensor 3"),
    "tensor of no family": (lambda c, t: t.update(more=torch.ones(1)), "1 tensors belong to no family: more"),
    "family of no ensemble": (
        lambda c, _: c["families"].append(c["families"][0]),
        "1 families belong to no ensemble",
    ),
    "a later family": (put("rounded", "base", {"family": 10**6}), "needs family 1000000; 0..0 come before it"),
    "itself": (put("rounded", "base", {"family": 1}), "needs family 1; 0..0 come before it"),
    "a negative place": (put("rounded", "base", {"family": -1}), "needs family -1"),
    "a place of an ensemble": (entry("low", "families", {"w": 10**6}), "families['w'] needs family 1000000"),
    # ensembles
    "no members": (entry("low", "members", []), "ensembles['low'].members is empty"),
    "negative member": (
        entry("low", "members", [-1]),
        "members do not fit tensor 'w.weight': member -1 does not exist",
    ),
    "member out of range": (entry("kept", "members", [0, 2]), "member 2 does not exist; the members are 0..1"),
    "a member without an address": (entry("low", "members", [2**24]), "the members are 0..16777215"),
    "member of no number": (entry("low", "members", ["0"]), "members[0] is '0'; wanted a whole number"),
    "weights for others": (entry("low", "weights", [0.5, 0.5]), "weights has 2 numbers for 3 members"),
    "weights that do not sum": (entry("low", "weights", [0.5, 0.5, 0.5]), "sum to one; got a sum of 1.5"),
    "negative weight": (entry("low", "weights", [-0.5, 0.5, 1.0]), "not negative and sum to one"),
    "weights of no list": (entry("low", "weights", 1.0), "weights is 1.0; wanted a list"),
    "weights missing": (lambda c, _: c["ensembles"]["low"].pop("weights"), "lacks the fields ['weights']"),
    # stacked, affine, joined, gaussian
    "rows without numbers": (put("stacked", "index", [0]), "2 rows are indexed by 1 member numbers"),
    "two rows for a member": (put("stacked", "index", [0, 0]), "two rows are kept for the same member"),
    "no member axis": (tensor("stacked", "values", lambda t: t.flatten()[0]), "need a member axis"),
    "directions": (
        tensor("affine", "directions", lambda t: t[:, :2]),
        "directions have shape (1, 2, 6); wanted (1, 4, 6)",
    ),
    "coordinates": (tensor("affine", "coordinates", lambda t: t.flatten()), "coordinates are floats [K, D]"),
    "no parts": (put("joined", "parts", []), "0 parts are joined by 2 lists"),
    "parts of other shapes": (tensor("shared", "value", lambda t: t[:2], 1), "joined parts have one shape and dtype"),
    "ids out of range": (put("joined", "ids", [[0], [7, 0]]), "joined: member 7 does not exist"),
    "std": (tensor("gaussian", "std", lambda t: t[:2]), "std is float, not negative, of the mean's shape (4, 6)"),
    "negative std": (tensor("gaussian", "std", lambda t: t - 9), "std is float, not negative"),
    "NaN std": (tensor("gaussian", "std", poisoned), "std is float, not negative"),
    "factors": (tensor("gaussian", "factors", lambda t: t[0]), "factors have shape (4, 6); wanted [R, *(4, 6)]"),
    # rounded
    "layout": (put("rounded", "layout", LAYOUT), "the layout has 15 elements and the tensor 12"),
    "negative layout": (
        put("rounded", "layout", {"layout": {**LAYOUT["layout"], "blocks": -1, "channels": -3, "inner": 4}}),
        "the layout has 12 elements and the tensor 12",
    ),
    "group": (put("rounded", "granularity", 3), "groups of 3 do not divide the 4 inputs"),
    "no base member": (put("rounded", "bases", []), "needs a base member"),
    "NaN in a base": (tensor("shared", "value", poisoned), "NaN or Inf among numbers that are rounded"),
    "an integer base": (tensor("shared", "value", lambda t: t.to(torch.int64)), "the base is torch.int64"),
    "too many bits": (put("rounded", "format", {"integer": {"bits": 9, "symmetric": True}}), "have 2 to 8 bits; got 9"),
    "NF5": (put("rounded", "format", {"normalfloat": {"name": "nf5", "bits": 5}}), "NormalFloat has 4 bits; got 5"),
    "a minifloat of 17 bits": (
        put("rounded", "format", {"minifloat": {"name": "x", "exponent": 8, "mantissa": 8, "largest": 1.0}}),
        "no minifloat of up to 16 bits",
    ),
    "a minifloat beyond itself": (
        put("rounded", "format", {"minifloat": {"name": "x", "exponent": 4, "mantissa": 3, "largest": 512.0}}),
        "no minifloat of up to 16 bits",
    ),
    # coded
    "codes": (
        tensor("coded", "codes", lambda t: t[:, :5]),
        "codes: 12 codes of 4 bits are uint8 [K, 6]; got torch.uint8 (3, 5)",
    ),
    "codes of another dtype": (tensor("coded", "codes", lambda t: t.to(torch.int32)), "got torch.int32 (3, 6)"),
    "planes": (tensor("coded", "planes", lambda t: t[:, :1], 1), "planes: 12 codes of 1 bits are uint8 [K, 2]"),
    "planes with many codes": (
        tensor("coded", "codes", lambda t: t.repeat(2, 1), 1),
        "bit planes share one row of codes",
    ),
    "dims": (put("coded", "dims", [3, 5]), "the layout has 12 elements and the tensor 15"),
    "negative dims": (put("coded", "dims", [-3, -4]), "the axes of a shape are 0.."),
    "a dtype that is none": (put("coded", "kind", "load"), "codes decode to float64, float32"),
    "scale": (grid_tensor("scale", lambda t: t[:2]), "scale is float32 (3, 1); got torch.float32 (2, 1)"),
    "scale of another dtype": (
        grid_tensor("scale", lambda t: t.double()),
        "scale is float32 (3, 1); got torch.float64",
    ),
    "scale of zero": (grid_tensor("scale", lambda t: t * 0), "a scale is not a positive finite number"),
    "zero points": (grid_tensor("zero", lambda t: t[:, [0, 0]]), "zero is float32 (3, 1)"),
    "NaN zero points": (grid_tensor("zero", poisoned), "NaN or Inf"),
    "zero points of a symmetric grid": (
        grid("format", {"integer": {"bits": 4, "symmetric": True}}),
        "int4 has no zero points",
    ),
    "no grid": (
        lambda c, t: (find(c, "coded").update(grids=[]), drop(c, t)),
        "codes need a grid, and all grids one format; got []",
    ),
    "group of a grid": (grid("group", 3), "groups of 3 do not divide the 4 inputs"),
    "more grids than members": (
        lambda c, _: find(c, "coded").update(grids=find(c, "coded")["grids"] * 2),
        "one grid for all members or one for each; got 2 for 3",
    ),
}


def drop(content: Content, tensors: dict[str, torch.Tensor]) -> None:
    """Leave out the tensors that nothing names any more."""
    text = json.dumps(content)
    for name in [name for name in tensors if f'"{name}"' not in text]:
        del tensors[name]


@pytest.mark.parametrize("name", MALFORMED)
def test_malformed_content_says_what_is_wrong(file: Path, name: str) -> None:
    change, message = MALFORMED[name]
    rewrite(file, change)
    with pytest.raises(FileFormatError) as caught:
        load_all(file)
    assert message in str(caught.value)
    assert str(file) in str(caught.value)
    assert "Save the ensemble again" in str(caught.value)


def test_noise_around_integers_is_refused(tmp_path: Path) -> None:
    save(tmp_path / "e", golden()["families"]["cloud"])
    mean = "ensemble/integer/mean/value"
    rewrite(tmp_path / "e", lambda _, tensors: tensors.update({mean: tensors[mean].to(torch.int64)}))
    with pytest.raises(FileFormatError, match=r"floats of 16 bits or more; the mean is torch\.int64"):
        load(tmp_path / "e")


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
