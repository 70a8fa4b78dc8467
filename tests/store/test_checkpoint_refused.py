"""Checkpoints that are refused, and what is said of them."""

import argparse
import os
import pickle
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from pluria.core.ensemble import single
from pluria.core.errors import CheckpointError
from pluria.store import read_checkpoint, save
from store.states import written


def test_a_pickle_with_code_is_refused_and_not_run(tmp_path: Path) -> None:
    class Code:
        def __reduce__(self) -> tuple[Any, ...]:
            return os.system, (f"touch {tmp_path / 'ran'}",)

    with pytest.raises(
        CheckpointError, match=r"(?s)more than tensors \(posix.system\).*would run code.*weights_only=False"
    ):
        read_checkpoint(written(tmp_path, {"w": torch.ones(1), "code": Code()}))
    (tmp_path / "plain.pkl").write_bytes(pickle.dumps(Code(), protocol=2))
    with pytest.raises(CheckpointError):
        read_checkpoint(tmp_path / "plain.pkl")
    assert not (tmp_path / "ran").exists()


NEEDS_MORE = {
    "whole model": (nn.Linear(2, 2), "torch.nn.modules.linear.Linear"),
    "arguments beside": (
        {"state_dict": nn.Linear(2, 2).state_dict(), "args": argparse.Namespace(a=1)},
        "argparse.Namespace",
    ),
}


@pytest.mark.parametrize("name", NEEDS_MORE)
def test_a_file_that_needs_more_says_how_to_convert_it(tmp_path: Path, name: str) -> None:
    what, needed = NEEDS_MORE[name]
    with pytest.raises(CheckpointError) as caught:
        read_checkpoint(written(tmp_path, what))
    message = str(caught.value)
    assert f"more than tensors ({needed})" in message
    exec("\n".join(line.strip() for line in message.splitlines()[1:]))  # the advice, followed to the letter
    found = read_checkpoint(tmp_path / "c.tensors.pt")
    assert sorted(found.params) == ["bias", "weight"]


def test_a_torchscript_program_is_refused(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.script(nn.Linear(2, 2)), tmp_path / "c.pt")
    with pytest.raises(CheckpointError, match=r"(?s)TorchScript program.*torch.jit.load"):
        read_checkpoint(tmp_path / "c.pt")


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("share", [0.0, 0.3, 0.9])
def test_a_torch_file_that_is_cut_off_is_refused(tmp_path: Path, zipped: bool, share: float) -> None:
    torch.save({"w": torch.ones(3000)}, tmp_path / "c.pt", _use_new_zipfile_serialization=zipped)
    data = (tmp_path / "c.pt").read_bytes()
    (tmp_path / "c.pt").write_bytes(data[: int(len(data) * share)])
    with pytest.raises(CheckpointError, match="cut off or no checkpoint"):
        read_checkpoint(tmp_path / "c.pt")


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ({}, "the checkpoint holds no tensors. Give a state dict"),
        ({"epoch": 1}, "the checkpoint holds no tensors. Give a state dict"),
        ({"generator": {"w": torch.ones(1)}, "step": 1}, "holds no tensors. Give the `level`: generator"),
        ([torch.ones(1)], "this file holds a list. Save a state dict"),
        (torch.ones(1), "this file holds a Tensor. Save a state dict"),
        ({"w": torch.eye(3).to_sparse()}, "tensor 'w' is torch.sparse_coo on cpu; give dense tensors"),
        ({"w": torch.ones(2, device="meta")}, "tensor 'w' is torch.strided on meta; give dense tensors"),
        ({"a": torch.tensor([1.0, float("nan")]), "b": torch.ones(1)}, r"NaN or Inf in .*c.pt: 1 not finite \(a\)"),
        ({"a": torch.tensor([1.0, float("-inf")])}, r"1 not finite \(a\)"),
    ],
)
def test_other_contents_are_refused(tmp_path: Path, what: Any, message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        read_checkpoint(written(tmp_path, what))


def test_an_empty_safetensors_file_is_refused(tmp_path: Path) -> None:
    save_file({}, tmp_path / "c.safetensors")
    with pytest.raises(CheckpointError, match="holds no tensors"):
        read_checkpoint(tmp_path / "c.safetensors")


def test_other_files_are_told_apart(tmp_path: Path) -> None:
    save(tmp_path / "e.pluria", single({"w": torch.ones(1)}))
    with pytest.raises(CheckpointError, match=r"a saved ensemble, not a checkpoint. Use `load`"):
        read_checkpoint(tmp_path / "e.pluria")
    np.save(tmp_path / "a.npy", np.zeros(30))
    with pytest.raises(CheckpointError, match="not a safetensors file"):
        read_checkpoint(tmp_path / "a.npy")
    with pytest.raises(FileNotFoundError):
        read_checkpoint(tmp_path / "absent.pt")


def test_quantised_checkpoints_are_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"quantization_config": {"quant_method": "gptq", "bits": 4}}')
    save_file({"a": torch.ones(1)}, tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"config.json names the method 'gptq'"):
        read_checkpoint(tmp_path)
    save_file({"l.qweight": torch.ones(2, 2, dtype=torch.int32)}, tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"quantised already \(GPTQ or AWQ: l.qweight\)"):
        read_checkpoint(tmp_path / "model.safetensors")


def test_torch_quantised_modules_are_refused(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        net = torch.ao.quantization.quantize_dynamic(nn.Sequential(nn.Linear(4, 4)), dtype=torch.qint8)
        path = written(tmp_path, net.state_dict())
    with pytest.raises(CheckpointError, match=r"quantised already .torch's quantised modules"):
        read_checkpoint(path)
