"""Bad input: one clear message that begins with `error:`, exit code 2, no traceback, and nothing written."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from cli.conftest import Pluria
from cli.user import MODEL, left, refused

SAMPLE = ("sample", "--model", MODEL, "--out", "x.pluria")
PREDICT = ("predict", "net.pluria", "--trust", "--out", "p.safetensors")


def spoiled(change: Callable[[dict[str, torch.Tensor]], Any]) -> None:
    """The user's checkpoint with a change, as `bad.safetensors`."""
    state = load_file("net.safetensors")
    change(state)
    save_file(state, "bad.safetensors")


CHECKPOINTS: dict[str, tuple[Callable[[dict[str, torch.Tensor]], Any], tuple[str, ...]]] = {
    "names": (lambda s: s.update(tail=s.pop("head.weight")), ("1 missing (head.weight)", "1 unknown (tail)")),
    "shapes": (
        lambda s: s.update({"body.weight": torch.zeros(4, 12)}),
        ("body.weight has (4, 12), wanted (16, 12)", "Build the network with the arguments it was trained with"),
    ),
    "nan": (lambda s: s["head.bias"].fill_(float("nan")), ("NaN or Inf", "head.bias")),
    "infinity": (lambda s: s["norm.running_var"].fill_(float("inf")), ("NaN or Inf", "norm.running_var")),
    "int8": (
        lambda s: s.update({"head.weight": torch.zeros(3, 16, dtype=torch.int8)}),
        ("quantised already", "head.weight", "it was made from"),
    ),
    "float8": (
        lambda s: s.update({"head.weight": torch.zeros(3, 16).to(torch.float8_e4m3fn)}),
        ("quantised already", "head.weight"),
    ),
    "gptq": (
        lambda s: s.update({"head.qweight": torch.zeros(3, 2, dtype=torch.int32)}),
        ("quantised already (GPTQ or AWQ: head.qweight)",),
    ),
    "nothing": (lambda s: s.clear(), ("bad.safetensors",)),
}


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_checkpoints(here: Path, pluria: Pluria, name: str) -> None:
    change, said = CHECKPOINTS[name]
    spoiled(change)
    before = left(here)
    refused(pluria(*SAMPLE, "--checkpoint", "bad.safetensors"), "bad.safetensors", *said)
    assert left(here) == before


class Code:
    """A pickle that would run code."""

    def __reduce__(self) -> Any:
        return (print, ("this must never be seen",))


def test_files_that_are_no_checkpoints(here: Path, pluria: Pluria) -> None:
    whole = Path("net.safetensors").read_bytes()
    Path("cut.safetensors").write_bytes(whole[:-20])
    Path("empty.safetensors").write_bytes(b"")
    Path("code.pt").write_bytes(pickle.dumps({"state_dict": Code()}))
    torch.save([1, 2], "list.pt")
    for file, said in (
        ("cut.safetensors", "cut off"),
        ("empty.safetensors", "the file is empty"),
        ("code.pt", "code.pt"),
        ("list.pt", "this file holds a list"),
        ("none.safetensors", "No such file or directory (none.safetensors); "),
        ("my_package", "the folder has none of model.safetensors"),
        ("rows.npz", "rows.npz"),
    ):
        result = pluria(*SAMPLE, "--checkpoint", file)
        refused(result, said)
        assert "this must never be seen" not in result.out + result.err
    refused(pluria(*SAMPLE), "the network has no checkpoint")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--format", "int9"], "unknown number format 'int9'; did you mean int8"),
        (["--format", "flaot8"], "unknown number format 'flaot8'"),
        (["--granularity", "5"], "tensor 'body.weight' of shape (16, 12): groups of 5 do not divide the 12 inputs"),
        (["--granularity", "0"], "groups of 0 do not divide"),
        (["--granularity", "row"], "one scale per 'channel', per 'tensor', or per so many inputs; got 'row'"),
        (["--coupling", "stratifed"], "a coupling is one of independent, antithetic, stratified; got 'stratifed'"),
        (["--members", "0"], "an ensemble has one member or more; got 0"),
        (["--seed", "-1"], "a seed lies in 0..2^64-1; got -1"),
        (["--where", "tail.*"], "'tail.*'"),
        (["--packed", "bits"], "a form is 'members' or 'planes'; got 'bits'"),
        (["--argument", "width"], "--argument takes key=value, such as depth=20; got 'width'"),
        (["--argument", "width=[1"], "--argument 'width=[1': the value is not valid YAML"),
        (["--argument", "depth=3"], "network 'my_package.net:Net' with arguments {'depth': 3}: got an unexpected"),
        (["--argument", "width=8"], "body.weight has (16, 12), wanted (8, 12)"),
        (["--model", "my_package.net:Nett"], "module 'my_package.net' has no 'Nett' to call; did you mean 'Net'?"),
        (["--model", "my_pakage.net:Net"], "No module named 'my_pakage'. Run from the folder that holds it"),
        (["--model", "small_cn"], "no network 'small_cn'"),
        (["--out", "none/x.pluria"], "there is no folder none; make it first"),
        (["--out", "my_package"], "my_package is a folder; name a file in it"),
    ],
)
def test_options_of_sample(here: Path, pluria: Pluria, options: list[str], said: str) -> None:
    before = left(here)
    refused(pluria(*SAMPLE, "--checkpoint", "net.safetensors", *options), said)
    assert left(here) == before


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--data", "none.npz"], "looked for an .npz file at none.npz, where nothing is"),
        (["--data", "recipe.yaml"], "no reader 'recipe.yaml'"),
        (["--data", "digts"], "no reader 'digts'; did you mean 'digits'?"),
        (["--data", "digits"], "the network does not take inputs of shape [2, 1, 8, 8]"),
        (["--data", "rows.npz", "--data-argument", "chanels_last=true"], "unexpected keyword argument 'chanels_last'"),
        (["--data", "rows.npz", "--data-argument", "grey"], "--data-argument takes key=value"),
        (["--data", "rows.npz", "--batch", "0"], "a batch holds at least one example, not 0"),
        (["--data", "rows.npz", "--dtype", "float16"], "--dtype is float32 or bfloat16; got 'float16'"),
        (["--data", "rows.npz", "--device", "gpu"], "unknown device 'gpu'; use auto, cpu, cuda or cuda:1"),
        (["--data", "rows.npz", "--name", "other"], "the file holds 'ensemble': say which by --name"),
        (["--data", "rows.npz", "--out", "none/p.safetensors"], "there is no folder none; make it first"),
        (["--data", "rows.npz", "--out", "p.npz"], "p.npz: the file is written in the form of .safetensors"),
    ],
)
def test_options_of_predict(drawn: Path, pluria: Pluria, options: list[str], said: str) -> None:
    before = left(drawn)
    refused(pluria(*PREDICT, *options), said)
    assert left(drawn) == before


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--engine", "spark"], "an engine is one of local, processes, ray; got 'spark'"),
        (["--workers", "4"], "for 4 workers take `processes`"),
        (["--engine", "ray", "--address", "127.0.0.1:1"], "Ray at 127.0.0.1:1 does not answer (Connection refused)"),
        (
            ["--engine", "ray", "--address", "head"],
            "an address of Ray is host:port, such as 127.0.0.1:6379; got 'head'",
        ),
    ],
)
def test_engines_of_run(here: Path, pluria: Pluria, options: list[str], said: str) -> None:
    if "ray" in options:
        pytest.importorskip("ray", reason="Ray is not installed: pip install 'pluria[ray]'")
    before = left(here)
    refused(pluria("run", "recipe.yaml", "--out", "out", *options), said)
    assert left(here) == before


X = np.zeros((6, 12), "float32")
ROWS: dict[str, tuple[dict[str, Any], str]] = {
    "label too large": ({"x": X, "y": np.array([0, 1, 2, 3, 0, 1])}, "targets of bad go up to 3, and the network"),
    "label below zero": ({"x": X, "y": np.array([0, 1, -1, 2, 0, 1])}, "target -1 in row 2"),
    "labels that are no integers": ({"x": X, "y": np.linspace(0, 1, 6)}, "they must be integers that number"),
    "labels of another length": ({"x": X, "y": np.arange(5) % 3}, "6 inputs but 5 targets"),
    "no rows": ({"x": X[:0], "y": np.zeros(0, int)}, "there is no example"),
    "NaN": ({"x": X * np.nan, "y": np.arange(6) % 3}, "NaN or infinite inputs in 6 rows, the first is row 0"),
    "shape": ({"x": X[:, :7], "y": np.arange(6) % 3}, "the network does not take inputs of shape [2, 7]"),
    "dense targets": ({"x": X, "y": np.zeros((6, 4), int)}, "outputs of shape [2, 3] for targets of shape [2, 4]"),
    "other names": ({"a": X, "b": np.arange(6) % 3}, "no known pair among a, b; name them"),
    "objects": ({"x": X, "y": np.array([{}] * 6)}, "cannot be read as an .npz file"),
}


@pytest.mark.parametrize("name", ROWS)
def test_rows(drawn: Path, pluria: Pluria, name: str) -> None:
    arrays, said = ROWS[name]
    np.savez("bad.npz", **arrays)
    before = left(drawn)
    refused(pluria(*PREDICT, "--data", "bad.npz"), said)
    assert left(drawn) == before
    data = ("--set", "data.arguments={path: bad.npz, classes: 3}")
    result = pluria("run", "recipe.yaml", "--out", "out", *data)
    refused(result)
    assert left(drawn) == before


def test_damaged_ensembles(drawn: Path, pluria: Pluria) -> None:
    whole = Path("net.pluria").read_bytes()
    at = len(whole) - 30
    Path("cut.pluria").write_bytes(whole[:-9])
    Path("changed.pluria").write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
    Path("text.pluria").write_text("members")
    for file, said in (
        ("cut.pluria", "cut.pluria: the file is cut off"),
        ("changed.pluria", "changed.pluria: the content does not have the digest it was written with"),
        ("text.pluria", "text.pluria: this is not a safetensors file"),
        ("none.pluria", "No such file or directory (none.pluria); "),
        ("net.safetensors", "net.safetensors: this safetensors file is no saved ensemble"),
    ):
        refused(pluria("predict", file, "--trust", "--data", "rows.npz", "--out", "p.safetensors"), said)
        refused(pluria("export", file, "--out", "one.safetensors"), said)
        if file != "net.safetensors":
            refused(pluria("inspect", file), said)
    Path("copy.safetensors").write_bytes(whole)
    refused(pluria(*SAMPLE, "--checkpoint", "copy.safetensors"), "this is a saved ensemble, not a checkpoint")


def test_ensembles_that_say_nothing_about_their_network(drawn: Path, pluria: Pluria) -> None:
    import pluria as library

    for about in ({}, {"network": "Net"}, {"network": {"model": 3}}):
        library.save("bare.pluria", library.load("net.pluria"), about=about)
        result = pluria("predict", "bare.pluria", "--trust", "--data", "rows.npz", "--out", "p.safetensors")
        refused(result, "bare.pluria does not say which network its members belong to")
    odd = {"network": {"model": "mlp", "arguments": [1]}}
    library.save("odd.pluria", library.load("net.pluria"), about=odd)
    refused(pluria("predict", "odd.pluria", "--data", "rows.npz", "--out", "p.safetensors"))
    other = {"network": {"model": "mlp", "arguments": {"inputs": 12, "classes": 3}}}
    library.save("other.pluria", library.load("net.pluria"), about=other)
    result = pluria("predict", "other.pluria", "--data", "rows.npz", "--out", "p.safetensors")
    refused(result, "the ensemble does not fit the network", "linear1.weight")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--member", "9", "--out", "x.safetensors"], "net.pluria has no member 9; its members are [0, 1, 2, 3]"),
        (["--out", "x.bin"], "x.bin: a member is written to one of .safetensors, .pt, .pth"),
        (["--packed", "plane", "--out", "x.pluria"], "a form is 'members' or 'planes'; got 'plane'"),
        (["--out", "none/x.pt"], "none/x.pt: there is no folder none; make it first"),
        (["--all", "--out", "rows.npz"], "rows.npz"),
    ],
)
def test_options_of_export(drawn: Path, pluria: Pluria, options: list[str], said: str) -> None:
    before = left(drawn)
    refused(pluria("export", "net.pluria", *options), said)
    assert left(drawn) == before
    if "--all" not in options:
        refused(pluria("export", "net.pluria", "--dry-run", *options), said)


def test_predictions_that_cannot_be_scored(drawn: Path, pluria: Pluria) -> None:
    refused(pluria("score", "none.safetensors"), "none.safetensors: cannot be read as predictions")
    refused(pluria("score", "net.safetensors"), "scoring needs outputs and targets")
    np.savez("few.npz", x=np.zeros((1, 12), "float32"), y=np.array([0]))
    assert pluria(*PREDICT, "--data", "few.npz").code == 0
    refused(pluria("score", "p.safetensors"), "p.safetensors has 1 row")
