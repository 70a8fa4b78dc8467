import gzip
import struct
from pathlib import Path

import numpy as np
import pytest
import torch

from pluria.core.errors import DataError
from pluria.zoo.idx import idx, read_idx

IMAGES = np.arange(2 * 3 * 4, dtype=np.uint8).reshape(2, 3, 4)


def packed(values: np.ndarray, kind: int = 0x08) -> bytes:
    head = bytes([0, 0, kind, values.ndim]) + struct.pack(f">{values.ndim}I", *values.shape)
    return head + values.tobytes()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "t10k-images-idx3-ubyte").write_bytes(packed(IMAGES))
    (tmp_path / "t10k-labels-idx1-ubyte").write_bytes(packed(np.array([7, 1], dtype=np.uint8)))
    (tmp_path / "train-images-idx3-ubyte.gz").write_bytes(gzip.compress(packed(IMAGES[::-1].copy())))
    (tmp_path / "train-labels-idx1-ubyte.gz").write_bytes(gzip.compress(packed(np.array([1, 7], dtype=np.uint8))))
    return tmp_path


def test_plain_and_compressed_files_of_a_folder(folder: Path) -> None:
    test, train = idx(folder), idx(folder, split="train")
    assert test.inputs.shape == (2, 1, 3, 4)
    assert torch.equal(test.inputs[:, 0], torch.from_numpy(IMAGES))
    assert torch.equal(train.inputs.flip(0), test.inputs)
    assert (test.targets.tolist(), train.targets.tolist()) == ([7, 1], [1, 7])
    assert len(test.classes) == 10


def test_a_file_of_images_with_its_labels(folder: Path) -> None:
    (folder / "x.idx").write_bytes(packed(IMAGES))
    (folder / "y.idx").write_bytes(packed(np.array([0, 2], dtype=">i4"), kind=0x0C))
    data = idx(folder / "x.idx", labels=folder / "y.idx", classes=["a", "b", "c"])
    assert data.targets.tolist() == [0, 2]
    assert data.classes == ("a", "b", "c")
    with pytest.raises(ValueError, match="give its labels too"):
        idx(folder / "x.idx")
    with pytest.raises(ValueError, match="is a folder"):
        idx(folder, labels=folder / "y.idx")


def test_a_file_that_shrank_a_thousandfold(tmp_path: Path) -> None:
    (tmp_path / "blank.gz").write_bytes(gzip.compress(packed(np.zeros((10, 300, 300), dtype=np.uint8))))
    assert not read_idx(tmp_path / "blank.gz").any()


@pytest.mark.parametrize(("kind", "dtype"), [(0x09, "i1"), (0x0B, ">i2"), (0x0C, ">i4"), (0x0D, ">f4"), (0x0E, ">f8")])
def test_every_type_keeps_its_values(tmp_path: Path, kind: int, dtype: str) -> None:
    values = np.array([[-3, 0], [5, 120]], dtype=dtype)
    (tmp_path / "v.idx").write_bytes(packed(values, kind=kind))
    read = read_idx(tmp_path / "v.idx")
    assert read.dtype.isnative
    assert np.array_equal(read, values)


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (packed(IMAGES)[:-1], "takes 24 bytes, the file holds only 23"),
        (packed(IMAGES) + b"\0", "takes 24 bytes, the file holds more"),
        (packed(IMAGES)[:9], "ends inside its head"),
        (b"\0\0\x08\x02" + struct.pack(">2I", 2**32 - 1, 2**32 - 1) + b"abc", "holds only 3"),
        (b"PK\x03\x04" + bytes(40), "starts with 50 4b 03 04, which is no IDX file"),
        (b"\0\0\x07\x01" + bytes(8), "no IDX file"),
        (b"", "starts with nothing"),
    ],
    ids=["short", "long", "head", "huge", "zip", "type", "empty"],
)
@pytest.mark.parametrize("ending", ["idx", "idx.gz"])
def test_malformed_files_are_refused(tmp_path: Path, raw: bytes, message: str, ending: str) -> None:
    file = tmp_path / f"bad.{ending}"
    file.write_bytes(gzip.compress(raw, mtime=0) if ending.endswith("gz") else raw)
    with pytest.raises(DataError, match=message):
        read_idx(file)


@pytest.mark.parametrize(
    "broken", [gzip.compress(packed(IMAGES), mtime=0)[:-12], b"no gzip at all"], ids=["cut", "text"]
)
def test_broken_compression_is_refused(tmp_path: Path, broken: bytes) -> None:
    (tmp_path / "bad.gz").write_bytes(broken)
    with pytest.raises(DataError, match="cannot be read"):
        read_idx(tmp_path / "bad.gz")


def test_missing_files_and_wrong_shapes(folder: Path) -> None:
    (folder / "t10k-labels-idx1-ubyte").rename(folder / "elsewhere")
    with pytest.raises(DataError, match=r"looked for test labels as t10k-labels-idx1-ubyte or .* holds elsewhere"):
        idx(folder)
    with pytest.raises(DataError, match=r"need axes \[N, H, W\] of bytes"):
        idx(folder / "elsewhere", labels=folder / "elsewhere")


def test_the_real_mnist(real_data: Path) -> None:
    data = idx(real_data / "mnist")
    assert data.inputs.shape == (10_000, 1, 28, 28)
    assert torch.bincount(data.targets).tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    assert data.targets[:5].tolist() == [7, 2, 1, 0, 4]
