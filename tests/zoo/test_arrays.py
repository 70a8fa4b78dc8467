from pathlib import Path

import numpy as np
import pytest
import torch

from pluria.core.errors import DataError
from pluria.zoo.arrays import arrays

PIXELS = np.arange(2 * 4 * 5 * 3, dtype=np.uint8).reshape(2, 4, 5, 3)
LABELS = np.array([2, 0])


def saved(folder: Path, **named: np.ndarray) -> Path:
    np.savez_compressed(folder / "data.npz", **named)
    return folder / "data.npz"


@pytest.mark.parametrize(
    ("x", "y"), [("x", "y"), ("X", "y"), ("inputs", "targets"), ("images_test", "labels_test"), ("x_train", "y_train")]
)
def test_known_names_are_found(tmp_path: Path, x: str, y: str) -> None:
    data = arrays(saved(tmp_path, **{x: PIXELS, y: LABELS, "more": LABELS}))
    assert torch.equal(data.inputs, torch.from_numpy(PIXELS))
    assert data.targets.tolist() == [2, 0]
    assert data.classes == ("0", "1", "2")
    assert data.name == "data"


def test_names_can_be_given_and_must_be_where_several_fit(tmp_path: Path) -> None:
    file = saved(tmp_path, x=PIXELS, y=LABELS, x_test=PIXELS[::-1], y_test=LABELS[::-1])
    assert arrays(file, inputs="x_test", targets="y_test").targets.tolist() == [0, 2]
    with pytest.raises(DataError, match="several pairs among x, y, x_test, y_test"):
        arrays(file)
    with pytest.raises(DataError, match="no array z; it holds x, y"):
        arrays(file, inputs="z", targets="y")
    with pytest.raises(ValueError, match="name both arrays or none"):
        arrays(file, inputs="x")
    with pytest.raises(DataError, match="no known pair among a, b"):
        arrays(saved(tmp_path, a=PIXELS, b=LABELS))


def test_axes_move_only_when_asked(tmp_path: Path) -> None:
    file = saved(tmp_path, x=PIXELS, y=LABELS)
    moved = arrays(file, channels_last=True).inputs
    assert moved.shape == (2, 3, 4, 5)
    assert moved[1, 2, 3, 4].item() == PIXELS[1, 3, 4, 2]
    grey = saved(tmp_path, x=PIXELS[..., 0], y=LABELS)
    assert arrays(grey).inputs.shape == (2, 4, 5)
    assert arrays(grey, grey=True).inputs.shape == (2, 1, 4, 5)
    with pytest.raises(DataError, match=r"channels_last needs inputs \[N, H, W, C\], not \[2, 4, 5\]"):
        arrays(grey, channels_last=True)
    with pytest.raises(ValueError, match="exclude each other"):
        arrays(grey, grey=True, channels_last=True)


def test_floats_become_float32_and_are_not_divided(tmp_path: Path) -> None:
    file = saved(tmp_path, x=np.array([[0.5, 2.0], [1.0, 3.0]]), y=LABELS)
    (inputs, _) = next(iter(arrays(file).batches(2)))
    assert inputs.tolist() == [[0.5, 2.0], [1.0, 3.0]]
    (halved, _) = next(iter(arrays(file, scale=2.0).batches(2)))
    assert halved.tolist() == [[0.25, 1.0], [0.5, 1.5]]


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        (np.zeros((2, 3), dtype=np.int64), LABELS, "inputs are int64"),
        (np.zeros((2, 3)), np.array([0.0, 1.0]), "targets are float64"),
        (np.array([[1.0], [np.nan]]), LABELS, "the first is row 1"),
        (np.zeros((3, 3)), LABELS, "3 inputs but 2 targets"),
        (np.zeros((2, 3)), np.array([-2, -1]), "target -2 in row 0 is negative; classes are numbered from 0"),
        (np.array([None, 1], dtype=object), LABELS, r"cannot be read as an .npz file \(an array holds Python objects"),
    ],
)
def test_malformed_arrays_are_refused(tmp_path: Path, x: np.ndarray, y: np.ndarray, message: str) -> None:
    with pytest.raises(DataError, match=message):
        arrays(saved(tmp_path, x=x, y=y))


def test_more_classes_than_targets_can_be_named(tmp_path: Path) -> None:
    file = saved(tmp_path, x=PIXELS, y=LABELS)
    assert len(arrays(file, classes=7).classes) == 7
    with pytest.raises(DataError, match="target 2 in row 0, but 2 classes"):
        arrays(file, classes=["a", "b"])


def test_files_that_are_no_archives_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"looked for an \.npz file"):
        arrays(tmp_path / "gone.npz")
    whole = saved(tmp_path, x=PIXELS, y=LABELS).read_bytes()
    for broken in (whole[:-30], b"", b"not an archive", whole[:60] + b"\xff" * 40 + whole[100:]):
        (tmp_path / "bad.npz").write_bytes(broken)
        with pytest.raises(DataError, match=r"bad\.npz: cannot be read") as caught:
            arrays(tmp_path / "bad.npz")
        assert "pickle" not in str(caught.value), "nobody should load it unsafely"
    np.save(tmp_path / "one.npy", PIXELS)
    with pytest.raises(DataError, match="holds a single array"):
        arrays(tmp_path / "one.npy")


def test_a_real_archive(real_data: Path) -> None:
    data = arrays(real_data / "mnist1d" / "mnist1d.npz", inputs="x_test", targets="y_test")
    assert data.inputs.shape == (1000, 40)
    assert len(data.classes) == 10
