"""The IDX files of MNIST and its relatives, plain or gzip-compressed.

    bytes 0 0, type, number of axes, then one big-endian uint32 for each axis, then the values in row order

Source: LeCun, Cortes and Burges, The MNIST database, "File formats".
"""

import gzip
import math
import struct
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np
import numpy.typing as npt
import torch

from pluria.core.errors import DataError
from pluria.zoo.dataset import Dataset
from pluria.zoo.labels import class_names, class_numbers
from pluria.zoo.lookup import choose
from pluria.zoo.paths import first_present, present

_TYPES = {0x08: "u1", 0x09: "i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
_PREFIXES = {"train": "train", "test": "t10k"}
_INFLATION = 1032  # deflate makes at most this many bytes of one
_ENDINGS = ("-ubyte", "-ubyte.gz", ".idx", ".idx.gz", "", ".gz")


def idx(
    path: str | Path,
    *,
    labels: str | Path | None = None,
    split: str = "test",
    classes: Sequence[str] | int = 10,
    mean: Sequence[float] = (0.0,),
    std: Sequence[float] = (1.0,),
) -> Dataset:
    """Grey images uint8 `[N, 1, H, W]` and their labels.

    `path` is a folder with `train-images-idx3-ubyte`, `t10k-labels-idx1-ubyte` and so on (`.gz` or not; `split`
    chooses), or a file of images; then `labels` is the file of labels. DataError where a file is missing, truncated,
    too long or no IDX file, and where images are not three axes of bytes.
    """
    image_file, label_file = _pair(present(path, wanted="IDX files"), labels, split)
    images = read_idx(image_file)
    if images.ndim != 3 or images.dtype != np.uint8:
        raise DataError(f"{image_file}: images need axes [N, H, W] of bytes, not {images.shape} of {images.dtype}")
    targets = class_numbers(read_idx(label_file), name=str(label_file))
    return Dataset(
        inputs=torch.from_numpy(images).unsqueeze(1),
        targets=targets,
        classes=class_names(classes, targets),
        name=image_file.name,
        mean=tuple(mean),
        std=tuple(std),
    )


def read_idx(path: str | Path) -> npt.NDArray[Any]:
    """The array of one IDX file; DataError where the file is not exactly as long as its head says."""
    file = present(path, wanted="an IDX file")
    try:
        with _open(file) as stream:
            kind, shape = _head(stream, file)
            wanted = math.prod(shape) * kind.itemsize
            # One byte more than wanted shows a file that is too long; a corrupt head must not ask for all memory.
            raw = stream.read(min(wanted, file.stat().st_size * _INFLATION) + 1)
    except (EOFError, OSError, zlib.error) as error:
        raise DataError(f"{file}: cannot be read ({error})") from None
    if len(raw) != wanted:
        found = f"only {len(raw)}" if len(raw) < wanted else "more"
        raise DataError(f"{file}: {shape} of {kind} takes {wanted} bytes, the file holds {found}")
    return np.frombuffer(raw, dtype=kind).reshape(shape).astype(kind.newbyteorder("="))


def _open(file: Path) -> BinaryIO:
    return cast(BinaryIO, gzip.open(file, "rb")) if file.suffix == ".gz" else file.open("rb")


def _head(stream: BinaryIO, file: Path) -> tuple[np.dtype[Any], tuple[int, ...]]:
    magic = stream.read(4)
    if len(magic) < 4 or magic[:2] != b"\0\0" or magic[2] not in _TYPES:
        raise DataError(f"{file}: starts with {magic.hex(' ') or 'nothing'}, which is no IDX file")
    sizes = stream.read(4 * magic[3])
    if len(sizes) < 4 * magic[3]:
        raise DataError(f"{file}: ends inside its head")
    return np.dtype(_TYPES[magic[2]]), struct.unpack(f">{magic[3]}I", sizes)


def _pair(path: Path, labels: str | Path | None, split: str) -> tuple[Path, Path]:
    if path.is_file():
        if labels is None:
            raise ValueError(f"{path} is a file of images: give its labels too, labels=PATH, or give the folder")
        return path, present(labels, wanted="a file of labels")
    if labels is not None:
        raise ValueError(f"labels={labels} goes with a file of images, but {path} is a folder")
    prefix = choose(_PREFIXES, split, what="split of IDX files")
    parts = ("images-idx3", "labels-idx1")
    image_file, label_file = (
        first_present((path / f"{prefix}-{part}{ending}" for ending in _ENDINGS), wanted=f"{split} {part[:6]}")
        for part in parts
    )
    return image_file, label_file
