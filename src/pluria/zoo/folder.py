"""Images in one folder per class: `ROOT/class/name.png`."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from pluria.core.errors import DataError
from pluria.zoo.dataset import Dataset
from pluria.zoo.lookup import choose
from pluria.zoo.paths import contents, present

_ENDINGS = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"})
_MODES = {"RGB": "RGB", "L": "L"}


def folder(
    path: str | Path,
    *,
    size: int | Sequence[int] | None = None,
    mode: str = "RGB",
    classes: Sequence[str] | None = None,
    mean: Sequence[float] = (0.0,),
    std: Sequence[float] = (1.0,),
) -> Dataset:
    """Images uint8 `[N, 3, H, W]`, or `[N, 1, H, W]` with `mode="L"`, sorted by class and then by file name.

    Classes are the names of the folders in sorted order, or as given (a network's order; a folder outside it is
    refused). All images must have one size, unless `size` (H = W, or H and W) is given; then others are resized
    (bilinear). Files with other endings and hidden folders are passed over. DataError where an image cannot be read,
    holds more than 8 bits a channel, or differs in size.
    """
    root = present(path, wanted="a folder of images")
    colour = choose(_MODES, mode, what="image mode")
    names = _classes(root, classes)
    files = [(file, number) for number, name in enumerate(names) for file in _images(root / name)]
    if not files:
        raise DataError(f"no image in the folders of {root}; {contents(root)}")
    images = [_read(file, mode=colour, size=_height_width(size)) for file, _ in files]
    for (file, _), image in zip(files, images, strict=True):
        if image.shape != images[0].shape:
            sizes = f"{list(image.shape[1:])}, but {files[0][0]} has {list(images[0].shape[1:])}"
            raise DataError(f"{file} has size {sizes}; give size=... to resize them all")
    return Dataset(
        inputs=torch.stack(images),
        targets=torch.tensor([number for _, number in files]),
        classes=names,
        name=root.name,
        mean=tuple(mean),
        std=tuple(std),
    )


def _classes(root: Path, classes: Sequence[str] | None) -> tuple[str, ...]:
    if not root.is_dir():
        raise DataError(f"{root} is a file; a folder with one folder for each class was looked for")
    found = sorted(entry.name for entry in root.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    if not found:
        raise DataError(f"looked for one folder for each class; {contents(root)}")
    unknown = [name for name in found if classes is not None and name not in classes]
    if unknown:
        raise DataError(f"{root} holds {', '.join(unknown)}, which are not among the classes given")
    return tuple(found if classes is None else classes)


def _images(place: Path) -> list[Path]:
    if not place.is_dir():
        return []  # a class that was given and has no example here
    return sorted(file for file in place.iterdir() if file.suffix.lower() in _ENDINGS)


def _height_width(size: int | Sequence[int] | None) -> tuple[int, int] | None:
    if size is None:
        return None
    height, width = (size, size) if isinstance(size, int) else size
    return height, width


def _read(file: Path, *, mode: str, size: tuple[int, int] | None) -> Tensor:
    from PIL import Image

    try:
        with Image.open(file) as image:
            if image.mode.startswith(("I", "F")):
                raise DataError(f"{file}: mode {image.mode} holds more than 8 bits a channel; convert it first")
            pixels = image.convert(mode)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise DataError(f"{file}: cannot be read as an image ({error})") from None
    if size is not None and pixels.size != (size[1], size[0]):
        pixels = pixels.resize((size[1], size[0]), Image.Resampling.BILINEAR)
    values = torch.from_numpy(np.array(pixels))
    return values.unsqueeze(0) if mode == "L" else values.permute(2, 0, 1)
