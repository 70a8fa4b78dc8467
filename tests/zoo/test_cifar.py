from pathlib import Path

import numpy as np
import pytest
import torch

from pluria.core.errors import DataError
from pluria.zoo.cifar import cifar10, cifar100

PIXELS = 3 * 32 * 32


def records(*labels: tuple[int, ...], seed: int = 0) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (len(labels), PIXELS), dtype=np.uint8)
    return np.concatenate([np.array(labels, dtype=np.uint8), pixels], axis=1).tobytes()


@pytest.fixture
def ten(tmp_path: Path) -> Path:
    folder = tmp_path / "cifar-10-batches-bin"
    folder.mkdir()
    (folder / "test_batch.bin").write_bytes(records((3,), (9,)))
    (folder / "data_batch_1.bin").write_bytes(records((0,), seed=1))
    (folder / "data_batch_2.bin").write_bytes(records((1,), (2,), seed=2))
    return folder


def test_pixels_lie_plane_by_plane_and_row_by_row(ten: Path) -> None:
    data = cifar10(ten)
    raw = (ten / "test_batch.bin").read_bytes()
    assert data.inputs.shape == (2, 3, 32, 32)
    assert data.inputs[1, 2, 5, 7].item() == raw[(1 + PIXELS) + 1 + 2 * 1024 + 5 * 32 + 7]
    assert data.targets.tolist() == [3, 9]
    assert data.classes[3] == "cat"
    assert data.name == "CIFAR-10 test"


def test_the_folder_its_parent_or_a_file_will_do(ten: Path) -> None:
    for path in (ten.parent, str(ten), ten / "test_batch.bin"):
        assert torch.equal(cifar10(path).inputs, cifar10(ten).inputs)
    assert cifar10(ten, split="train").targets.tolist() == [0, 1, 2]


def test_both_kinds_of_cifar100_labels(tmp_path: Path) -> None:
    (tmp_path / "test.bin").write_bytes(records((19, 99), (0, 42)))
    assert cifar100(tmp_path).targets.tolist() == [99, 42]
    coarse = cifar100(tmp_path, labels="coarse")
    assert coarse.targets.tolist() == [19, 0]
    assert len(coarse.classes) == 20
    with pytest.raises(ValueError, match="did you mean 'fine'"):
        cifar100(tmp_path, labels="fin")


def test_class_names_are_read_where_they_lie(ten: Path, tmp_path: Path) -> None:
    (tmp_path / "test.bin").write_bytes(records((0, 1)))
    names = [f"name{i}" for i in range(100)]
    (tmp_path / "fine_label_names.txt").write_text("\n".join(names) + "\n\n")
    assert cifar100(tmp_path).classes == tuple(names)
    (ten / "batches.meta.txt").write_text("cat\ndog\n")
    with pytest.raises(DataError, match="2 class names where CIFAR-10 has 10"):
        cifar10(ten)


def test_truncated_empty_and_foreign_files_are_refused(ten: Path) -> None:
    file = ten / "test_batch.bin"
    whole = file.read_bytes()
    for broken in (whole[:-1], whole[: 1 + PIXELS // 2], b""):
        file.write_bytes(broken)
        with pytest.raises(DataError, match=rf"test_batch.bin: {len(broken)} bytes are no whole number"):
            cifar10(ten)
    file.write_bytes(records((10,)))
    with pytest.raises(DataError, match="target 10 in row 0"):
        cifar10(ten)


def test_missing_files_say_what_lies_there(ten: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"looked for CIFAR-10 at .*nowhere.* holds cifar-10-batches-bin"):
        cifar10(tmp_path / "nowhere")
    with pytest.raises(DataError, match=r"looked for test\.bin of CIFAR-100 .* holds data_batch_1\.bin"):
        cifar100(ten)
    with pytest.raises(ValueError, match="did you mean 'train'"):
        cifar10(ten, split="trian")


def test_the_real_test_images(official_layouts: Path) -> None:
    data = cifar10(official_layouts)
    assert len(data) == 10_000
    assert torch.equal(torch.bincount(data.targets), torch.full((10,), 1000))
    assert data.targets[:8].tolist() == [3, 8, 8, 0, 6, 6, 1, 6]
    assert len(cifar100(official_layouts)) == 2000
