import hashlib
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from pluria.core.errors import CheckpointError, FileFormatError
from pluria.store.tensors import DTYPES, digest, opened, read_tensor, write_tensors

SAMPLE = {
    "b": torch.arange(3, dtype=torch.int16),
    "a": torch.tensor(1.5),
    "c": torch.zeros(0, 2),
    "d": torch.tensor([True, False]),
    "turned": torch.arange(6.0).view(2, 3).T,
}


def test_the_library_reads_what_is_written(tmp_path: Path) -> None:
    write_tensors(tmp_path / "t", SAMPLE, {"k": "v\n é"})
    found = load_file(tmp_path / "t")
    assert {name: value.tolist() for name, value in found.items()} == {n: v.tolist() for n, v in SAMPLE.items()}
    with opened(tmp_path / "t", FileFormatError) as handle:
        assert handle.metadata() == {"k": "v\n é"}


def test_the_bytes_are_those_of_the_library(tmp_path: Path) -> None:
    """Where the library's order is fixed: one text, tensors of one dtype."""
    tensors = {"b": torch.arange(3.0), "a": torch.tensor(1.5), "c": torch.zeros(0, 2)}
    write_tensors(tmp_path / "ours", tensors, {"k": "v"})
    save_file(tensors, tmp_path / "theirs", metadata={"k": "v"})
    assert (tmp_path / "ours").read_bytes() == (tmp_path / "theirs").read_bytes()


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_dtype_comes_back_bit_for_bit(tmp_path: Path, dtype: torch.dtype) -> None:
    value = torch.tensor([1, 0, 2]).to(dtype)
    write_tensors(tmp_path / "t", {"x": value}, {})
    with opened(tmp_path / "t", FileFormatError) as handle:
        found = read_tensor(handle, "x")
    assert found.dtype == dtype
    assert torch.equal(found.view(torch.uint8), value.view(torch.uint8))


def test_texts_keep_their_order_and_the_bytes_never_change(tmp_path: Path) -> None:
    texts = {name: "1" for name in "zyxwvuts"}
    seen = set()
    for number in range(4):
        write_tensors(tmp_path / str(number), SAMPLE, texts)
        seen.add((tmp_path / str(number)).read_bytes())
    assert len(seen) == 1
    start = seen.pop()
    length = int.from_bytes(start[:8], "little")
    assert length % 8 == 0
    assert list(json.loads(start[8 : 8 + length])["__metadata__"]) == list(texts)


def test_wide_elements_come_first_so_that_all_are_aligned(tmp_path: Path) -> None:
    tensors = {"a": torch.zeros(3, dtype=torch.int8), "b": torch.zeros(3, dtype=torch.float64), "c": torch.zeros(3)}
    write_tensors(tmp_path / "t", tensors, {})
    data = (tmp_path / "t").read_bytes()
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    assert [header[name]["data_offsets"] for name in "bca"] == [[0, 24], [24, 36], [36, 39]]


def test_a_known_digest() -> None:
    value = torch.tensor([1, 2], dtype=torch.int16)
    wanted = hashlib.blake2b(b"text\na I16 [2]\n\x01\0\x02\0\nb F32 []\n\0\0\x80?", digest_size=32).hexdigest()
    assert digest("text", {"b": torch.tensor(1.0), "a": value}) == wanted


@pytest.mark.parametrize("value", [torch.zeros(2, dtype=torch.complex128), torch.eye(2).to_sparse()])
def test_what_files_do_not_hold_is_refused(tmp_path: Path, value: torch.Tensor) -> None:
    with pytest.raises(TypeError, match=r"tensor 'x' is .*which safetensors files do not hold"):
        write_tensors(tmp_path / "t", {"x": value}, {})
    assert not list(tmp_path.iterdir())


def test_a_header_that_no_reader_takes_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pluria.store.tensors.LONGEST", 100)
    with pytest.raises(ValueError, match="no reader takes more than 100"):
        write_tensors(tmp_path / "t", SAMPLE, {})


def whole() -> bytes:
    header = json.dumps({"x": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}).encode()
    return len(header).to_bytes(8, "little") + header + b"\0" * 8


MALFORMED = {
    "empty": (b"", "the file is empty"),
    "a few bytes": (b"abc", "not a safetensors file, or one cut off within its header"),
    "no header": (whole()[:20], "not a safetensors file, or one cut off within its header"),
    "some text": (b"this is a text and nothing else, really", "not a safetensors file"),
    "cut off": (whole()[:-3], "cut off: its header speaks of 77 bytes, and it has 74"),
    "longer": (whole() + b"123", "longer than it should be: its header speaks of 77 bytes, and it has 80"),
    "a torch file": (b"PK\x03\x04" + b"\0" * 30, "this is a torch file"),
    "wrong shape": (whole().replace(b"[2]", b"[3]"), "the header is malformed"),
    "unknown dtype": (whole().replace(b"F32", b"X32"), "the header is malformed"),
    "no mapping": (b"\x02\0\0\0\0\0\0\0[]", "not a safetensors file"),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_malformed_files_say_what_is_wrong(tmp_path: Path, name: str) -> None:
    data, message = MALFORMED[name]
    (tmp_path / "t").write_bytes(data)
    with pytest.raises(CheckpointError, match=message):
        read_all(tmp_path / "t")


def read_all(path: Path) -> dict[str, torch.Tensor]:
    with opened(path, CheckpointError) as handle:
        return {name: read_tensor(handle, name) for name in handle.keys()}  # noqa: SIM118


def test_the_sample_file_is_whole(tmp_path: Path) -> None:
    (tmp_path / "t").write_bytes(whole())
    assert torch.equal(read_all(tmp_path / "t")["x"], torch.zeros(2))


def test_a_missing_file_and_a_folder_raise_their_own_errors(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), opened(tmp_path / "absent", FileFormatError):
        pass
    with pytest.raises(IsADirectoryError), opened(tmp_path, FileFormatError):
        pass
