"""Data sets of one's own in a NumPy `.npz` file with one array of inputs and one of integer targets."""

import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from pluria.core.errors import DataError
from pluria.zoo.dataset import Dataset
from pluria.zoo.labels import class_names, class_numbers
from pluria.zoo.paths import present

_STEMS = (("x", "y"), ("X", "y"), ("inputs", "targets"), ("images", "labels"))
KNOWN = (b"PK", b"\x93NUMPY")
"""How archives and single arrays start; NumPy takes anything else for a pickle, and says how to load it unsafely."""

_PAIRS = tuple((x + end, y + end) for x, y in _STEMS for end in ("", "_test", "_train"))


def arrays(
    path: str | Path,
    *,
    inputs: str | None = None,
    targets: str | None = None,
    channels_last: bool = False,
    grey: bool = False,
    classes: Sequence[str] | int | None = None,
    scale: float | None = None,
    mean: Sequence[float] = (0.0,),
    std: Sequence[float] = (1.0,),
) -> Dataset:
    """Inputs `[N, ...]` uint8 or float (kept as float32) and targets `[N]`, `[N, 1]` or dense.

    Arrays are found by the names x/y, inputs/targets, images/labels, each also with `_test` or `_train`; where a file
    holds several pairs, or others, name them: `inputs="x_test", targets="y_test"`. Axes are never guessed:
    `channels_last` moves `[N, H, W, C]` to `[N, C, H, W]`, `grey` makes `[N, H, W]` into `[N, 1, H, W]`. `classes` are
    names, a number, or as many as the largest target asks for. DataError for a file that cannot be read, that needs
    unpickling, or that does not hold the arrays.
    """
    file = present(path, wanted="an .npz file")
    x, y = _load(file, inputs, targets)
    if channels_last and grey:
        raise ValueError("channels_last and grey exclude each other: grey images have no axis of channels")
    numbers = class_numbers(y, name=str(file))
    return Dataset(
        inputs=_arranged(_stored(x, file), file, channels_last=channels_last, grey=grey),
        targets=numbers,
        classes=class_names(classes, numbers),
        name=file.stem,
        scale=scale,
        mean=tuple(mean),
        std=tuple(std),
    )


def _load(file: Path, inputs: str | None, targets: str | None) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    if (inputs is None) != (targets is None):
        raise ValueError(f"name both arrays or none: inputs={inputs!r}, targets={targets!r}")
    try:
        # Opened here, because numpy leaves a broken archive open (warned about when it is collected).
        with file.open("rb") as stream:
            if not stream.read(6).startswith(KNOWN):
                raise ValueError("it is none: save inputs and targets together with numpy.savez")
            stream.seek(0)
            archive = np.load(stream, allow_pickle=False)
            if not isinstance(archive, np.lib.npyio.NpzFile):
                raise DataError(f"{file}: holds a single array; save inputs and targets together with numpy.savez")
            pair = _named(archive.files, inputs, targets, file)
            return archive[pair[0]], archive[pair[1]]
    except ValueError as error:
        objects = "an array holds Python objects; save numbers"
        why = objects if "allow_pickle" in str(error) else error
        raise DataError(f"{file}: cannot be read as an .npz file ({why})") from None
    except (OSError, EOFError, KeyError, zipfile.BadZipFile, zlib.error) as error:
        raise DataError(f"{file}: cannot be read as an .npz file ({error})") from None


def _named(found: list[str], inputs: str | None, targets: str | None, file: Path) -> tuple[str, str]:
    if inputs is not None and targets is not None:
        missing = [name for name in (inputs, targets) if name not in found]
        if missing:
            raise DataError(f"{file}: no array {' or '.join(missing)}; it holds {', '.join(found)}")
        return inputs, targets
    pairs = [pair for pair in _PAIRS if pair[0] in found and pair[1] in found]
    if len(pairs) == 1:
        return pairs[0]
    seen = "several pairs" if pairs else "no known pair"
    raise DataError(f"{file}: {seen} among {', '.join(found)}; name them: inputs=..., targets=...")


def _stored(x: npt.NDArray[Any], file: Path) -> Tensor:
    if x.dtype == np.uint8:
        return torch.from_numpy(x)
    if x.dtype.kind != "f":
        raise DataError(f"{file}: inputs are {x.dtype}; save them as uint8 (images, 0..255) or as float32")
    return torch.from_numpy(x.astype(np.float32))


def _arranged(x: Tensor, file: Path, *, channels_last: bool, grey: bool) -> Tensor:
    wanted = {"channels_last": ("[N, H, W, C]", 4), "grey": ("[N, H, W]", 3)}
    for option, given in (("channels_last", channels_last), ("grey", grey)):
        axes, count = wanted[option]
        if given and x.ndim != count:
            raise DataError(f"{file}: {option} needs inputs {axes}, not {list(x.shape)}")
    if channels_last:
        return x.permute(0, 3, 1, 2).contiguous()
    return x.unsqueeze(1) if grey else x
