"""CIFAR-10 and CIFAR-100 in their official binary layout: records of one or two label bytes and 3 x 32 x 32 pixels.

A truncated file is refused where it breaks a record; official files hold 10,000 records (CIFAR-100's train.bin 50,000),
but shorter ones are read as they are, and so is a train folder with fewer than five `data_batch_N.bin`.
Source: Krizhevsky 2009, Learning Multiple Layers of Features from Tiny Images.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from pluria.core.errors import DataError
from pluria.zoo.dataset import Dataset
from pluria.zoo.lookup import choose
from pluria.zoo.paths import contents, present

_PIXELS = 3 * 32 * 32
_TEN = "airplane automobile bird cat deer dog frog horse ship truck"


@dataclass(frozen=True)
class _Layout:
    """Where the records of one set lie and which of their label bytes counts."""

    name: str
    folder: str
    files: dict[str, str]
    label_bytes: int
    label_byte: int
    names_file: str
    names: tuple[str, ...]


def cifar10(
    path: str | Path, *, split: str = "test", mean: Sequence[float] = (0.0,), std: Sequence[float] = (1.0,)
) -> Dataset:
    """Images uint8 `[N, 3, 32, 32]` of one file, or of the `train` or `test` files of `cifar-10-batches-bin`.

    `path` is that folder, the folder it lies in, or one file (then `split` only names the set). DataError where
    files are missing, a record is cut short, or a label exceeds the classes.
    """
    files = {"train": "data_batch_*.bin", "test": "test_batch.bin"}
    names = tuple(_TEN.split())
    layout = _Layout("CIFAR-10", "cifar-10-batches-bin", files, 1, 0, "batches.meta.txt", names)
    return _read(Path(path), layout, split=split, mean=mean, std=std)


def cifar100(
    path: str | Path,
    *,
    split: str = "test",
    labels: str = "fine",
    mean: Sequence[float] = (0.0,),
    std: Sequence[float] = (1.0,),
) -> Dataset:
    """Like `cifar10`, from `cifar-100-binary`, with its 100 `fine` or 20 `coarse` labels.

    Classes are named by `fine_label_names.txt` or `coarse_label_names.txt` beside the records, else by their numbers.
    """
    byte, classes = choose({"coarse": (0, 20), "fine": (1, 100)}, labels, what="kind of CIFAR-100 labels")
    names = tuple(map(str, range(classes)))
    files = {"train": "train.bin", "test": "test.bin"}
    layout = _Layout("CIFAR-100", "cifar-100-binary", files, 2, byte, f"{labels}_label_names.txt", names)
    return _read(Path(path), layout, split=split, mean=mean, std=std)


def _read(path: Path, layout: _Layout, *, split: str, mean: Sequence[float], std: Sequence[float]) -> Dataset:
    pattern = choose(layout.files, split, what=f"split of {layout.name}")
    files = _files(present(path, wanted=layout.name), layout, pattern)
    records = np.concatenate([_records(file, layout) for file in files])
    images = records[:, layout.label_bytes :].reshape(-1, 3, 32, 32)
    return Dataset(
        inputs=torch.from_numpy(np.ascontiguousarray(images)),
        targets=torch.from_numpy(records[:, layout.label_byte].astype(np.int64)),
        classes=_class_names(files[0].parent, layout),
        name=f"{layout.name} {split}",
        mean=tuple(mean),
        std=tuple(std),
    )


def _files(path: Path, layout: _Layout, pattern: str) -> list[Path]:
    if path.is_file():
        return [path]
    inner = path / layout.folder
    folder = inner if inner.is_dir() else path
    files = sorted(folder.glob(pattern))
    if not files:
        raise DataError(f"looked for {pattern} of {layout.name} in {folder}; {contents(folder)}")
    return files


def _records(file: Path, layout: _Layout) -> npt.NDArray[np.uint8]:
    raw = np.fromfile(file, dtype=np.uint8)
    length = layout.label_bytes + _PIXELS
    if raw.size == 0 or raw.size % length:
        raise DataError(
            f"{file}: {raw.size} bytes are no whole number of {layout.name} records of {length} bytes; "
            "the file is truncated or of another layout"
        )
    return raw.reshape(-1, length)


def _class_names(folder: Path, layout: _Layout) -> tuple[str, ...]:
    file = folder / layout.names_file
    if not file.is_file():
        return layout.names
    names = tuple(file.read_text(encoding="utf-8").split())
    if len(names) != len(layout.names):
        raise DataError(f"{file}: {len(names)} class names where {layout.name} has {len(layout.names)}")
    return names
