"""Malformed content of a file, field by field: one message that says what is wrong."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from golden.make import golden
from pluria.core.errors import FileFormatError
from pluria.store import load, load_all, save
from store.saved import rewrite

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
