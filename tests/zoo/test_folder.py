from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pluria.core.errors import DataError
from pluria.zoo.folder import folder

RED, BLUE = (255, 0, 0), (0, 0, 255)


def draw(file: Path, colour: tuple[int, int, int] = RED, *, height: int = 2, width: int = 3) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.full((height, width, 3), colour, dtype=np.uint8)
    pixels[0, -1] = (1, 2, 3)  # a corner that tells height from width and top from bottom
    Image.fromarray(pixels).save(file)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    draw(tmp_path / "dog" / "b.png", BLUE)
    draw(tmp_path / "dog" / "a.PNG", RED)
    draw(tmp_path / "cat" / "z.bmp", BLUE)
    (tmp_path / "cat" / "notes.txt").write_text("no image")
    (tmp_path / ".hidden").mkdir()
    return tmp_path


def test_images_come_sorted_by_class_and_file(root: Path) -> None:
    data = folder(root)
    assert data.classes == ("cat", "dog")
    assert data.targets.tolist() == [0, 1, 1]
    assert data.inputs.shape == (3, 3, 2, 3)
    assert data.inputs.dtype == torch.uint8
    assert data.inputs[:, :, 1, 0].tolist() == [list(BLUE), list(RED), list(BLUE)]
    assert data.inputs[0, :, 0, 2].tolist() == [1, 2, 3]


def test_grey_images_have_one_channel(root: Path) -> None:
    grey = folder(root, mode="L")
    assert grey.inputs.shape == (3, 1, 2, 3)
    assert grey.inputs[1, 0, 1, 1].item() == 76  # 0.299 * 255
    with pytest.raises(ValueError, match="image mode"):
        folder(root, mode="CMYK")


def test_a_network_can_give_the_order_of_classes(root: Path) -> None:
    data = folder(root, classes=["bird", "dog", "cat"])
    assert data.targets.tolist() == [1, 1, 2]
    assert data.classes == ("bird", "dog", "cat")
    with pytest.raises(DataError, match="holds dog, which are not among the classes"):
        folder(root, classes=["cat"])


def test_sizes_agree_or_are_given(root: Path) -> None:
    draw(root / "dog" / "c.png", height=4, width=3)
    with pytest.raises(DataError, match=r"c\.png has size \[4, 3\], but .*z\.bmp has \[2, 3\]; give size"):
        folder(root)
    assert folder(root, size=5).inputs.shape == (4, 3, 5, 5)
    resized = folder(root, size=[2, 3])
    assert resized.inputs.shape == (4, 3, 2, 3)
    assert resized.inputs[0, :, 0, 2].tolist() == [1, 2, 3]


def test_what_cannot_be_read_is_refused(root: Path) -> None:
    broken = root / "dog" / "broken.png"
    broken.write_bytes((root / "dog" / "b.png").read_bytes()[:40])
    with pytest.raises(DataError, match=r"broken\.png: cannot be read as an image"):
        folder(root)
    Image.fromarray(np.full((2, 3), 40_000, dtype=np.uint16)).save(broken)
    with pytest.raises(DataError, match=r"broken\.png: mode I;16 holds more than 8 bits"):
        folder(root)


def test_missing_and_empty_folders(root: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="looked for a folder of images at"):
        folder(root / "birds")
    with pytest.raises(DataError, match="is a file"):
        folder(root / "dog" / "b.png")
    with pytest.raises(DataError, match="looked for one folder for each class"):
        folder(root / "dog")
    (tmp_path / "empty" / "cat").mkdir(parents=True)
    with pytest.raises(DataError, match=r"no image in the folders of .*empty; .* holds cat"):
        folder(tmp_path / "empty")
