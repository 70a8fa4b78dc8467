"""Torch files, read without running code: tensors and plain containers only."""

from __future__ import annotations

import pickle
import re
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from pluria.core.errors import CheckpointError

MAGIC = (b"PK\x03\x04", b"\x80")
"""First bytes of torch files: the zip archive, and the bare pickle from before version 1.6."""

SUFFIXES = (".pt", ".pth", ".th", ".bin", ".ckpt", ".tar")

CONVERT = """Where you trust its source, convert it once (this runs the code in it):
    import torch; found = torch.load({path!r}, weights_only=False, map_location="cpu")
    torch.save(found.state_dict() if hasattr(found, "state_dict") else found["state_dict"], {new!r})"""


def is_torch_file(path: Path) -> bool:
    """Whether a file is to be read by torch: by its first bytes, or by its suffix where they say nothing."""
    with open(path, "rb") as file:
        start = file.read(9)
    if start[8:] == b"{":  # the header of a safetensors file, whose length may begin with the same byte as a pickle
        return False
    return start.startswith(MAGIC) or path.suffix in SUFFIXES


def read_torch(path: Path, *, mapped: bool = False, outline: bool = False) -> Mapping[str, Any]:
    """The mapping in a torch file, of tensors on the CPU.

    `mapped`, they are views of the file where it is a zip archive; `outline`, they have no data, on the device `meta`.
    Raises CheckpointError for a file that is damaged, needs code, or holds no mapping.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about TorchScript, which is refused below in better words
            zipped = (mapped or outline) and zipfile.is_zipfile(path)
            place = "meta" if outline else "cpu"
            found = torch.load(path, map_location=place, weights_only=True, mmap=zipped or None)
    except Exception as error:  # torch raises whatever its parser stumbles over: EOFError, KeyError, RuntimeError, ...
        raise CheckpointError(_reason(path, error)) from None
    if not isinstance(found, Mapping):
        raise CheckpointError(
            f"{path}: a checkpoint maps names to tensors; this file holds a {type(found).__name__}. Save a state dict"
        )
    return found


def _reason(path: Path, error: Exception) -> str:
    new = str(path.with_suffix(".tensors.pt"))
    if isinstance(error, pickle.UnpicklingError):
        needed = re.search(r"GLOBAL ([\w.]+)", str(error))
        what = f" ({needed[1]})" if needed else ""
        convert = CONVERT.format(path=str(path), new=new)
        return f"{path}: the file holds more than tensors{what}, and reading it would run code. {convert}"
    if "TorchScript" in str(error):
        return (
            f"{path}: this is a TorchScript program, and reading it would run it. Where you trust its source, save its "
            f"tensors once:\n    import torch; torch.save(torch.jit.load({str(path)!r}).state_dict(), {new!r})"
        )
    problem = type(error).__name__
    return f"{path}: torch cannot read the file ({problem}); it is cut off or no checkpoint. Take another copy"
