"""Changed copies of image data sets, to judge predictions away from the data that a network was trained on.

    noise         x + amount z,  z standard normal
    contrast      mean + amount (x - mean),  the mean over the whole image
    brightness    x + amount
    blur          sum_d g(d) x(. + d),  g(d) proportional to exp(-d^2 / (2 amount^2)), along rows and columns
    jpeg          x written as JPEG of quality amount and read again

x is the image on the scale 0..1, whatever scale it is stored on, and every result is clipped to 0..1. Changes act
before the normalisation and never on targets. They are no standard benchmark: quote the amounts with the figures.
"""

import io
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from pluria.numbers.key import NORMAL, Key, tensor_id
from pluria.numbers.philox import normals
from pluria.zoo.dataset import Dataset
from pluria.zoo.lookup import choose

# Pixels changed at once: float64 copies of 32 MiB, whatever the size of the data set.
_PIXELS_AT_ONCE = 1 << 22


@dataclass(frozen=True)
class Rows:
    """Where random numbers of some rows come from: the key, and the number of the first row in its data set."""

    key: Key
    first: int = 0


Shift = Callable[[Tensor, float, Rows], Tensor]
"""Images float64 `[n, C, H, W]` in 0..1, an amount, and their rows -> images in 0..1. ValueError for other amounts."""


def shifted(data: Dataset, changes: Mapping[str, float], *, seed: int = 0) -> Dataset:
    """The data set with its images changed, in the order of `changes`: `{"blur": 1.0, "noise": 0.08}`.

    Images are `[N, C, H, W]` in 0..scale: uint8 (255 where the data set has no `scale`), or float with a `scale`.
    uint8 stays uint8, rounded to the nearest after every change, so two changes at once equal one after the other.
    Targets, classes, scale, mean and std stay; the name tells the changes. Row n's noise depends on the seed, n and the
    size of the image alone: rows are changed alike with or without those after them. A second call with the same seed
    draws the same noise again.
    Refused with `ValueError`: an unknown change (the nearest is named), amounts out of range, inputs that are no
    images, float images without a scale, pixels outside 0..scale, JPEG of neither 1 nor 3 channels; with `TypeError`:
    amounts that are no numbers. `jpeg` needs Pillow; ImportError without it.

    >>> data = Dataset(torch.tensor([[[[100, 200]]]], dtype=torch.uint8), torch.tensor([0]), ("a",), "two pixels")
    >>> fainter = shifted(data, {"contrast": 0.5})
    >>> fainter.inputs.tolist(), fainter.name
    ([[[[125, 175]]]], 'two pixels, contrast 0.5')
    """
    steps = [(choose(SHIFTS, name, what="change of images"), _number(name, changes[name])) for name in changes]
    top = _top(data)
    key, images = Key(seed).fold("shifted images"), data.inputs
    size = max(1, _PIXELS_AT_ONCE // max(1, images[0].numel()))
    parts = []
    for first in range(0, len(images), size):
        part = images[first : first + size]
        for change, amount in steps:
            part = _stored(change(part.to(torch.float64) / top, amount, Rows(key, first)), top, part)
        parts.append(part)
    told = "".join(f", {name} {amount:g}" for name, amount in changes.items())
    return replace(data, inputs=torch.cat(parts), name=data.name + told)


def noise(images: Tensor, amount: float, rows: Rows) -> Tensor:
    """Gaussian noise of standard deviation `amount` >= 0, independent for every pixel and channel."""
    _within("noise", amount, 0, math.inf)
    size = images[0].numel()
    start, stop = rows.first * size, (rows.first + len(images)) * size
    z = normals(
        rows.key, tensor=tensor_id("noise"), group=0, stream=NORMAL, start=start, stop=stop, device=images.device
    )
    return (images + amount * z.view_as(images)).clamp(0, 1)


def contrast(images: Tensor, amount: float, rows: Rows) -> Tensor:
    """Distance from the mean over all pixels and channels of the image, times `amount` >= 0."""
    _within("contrast", amount, 0, math.inf)
    mean = images.mean((1, 2, 3), keepdim=True)
    return (mean + amount * (images - mean)).clamp(0, 1)


def brightness(images: Tensor, amount: float, rows: Rows) -> Tensor:
    """`amount` in -1..1 added to every pixel."""
    _within("brightness", amount, -1, 1)
    return (images + amount).clamp(0, 1)


def blur(images: Tensor, amount: float, rows: Rows) -> Tensor:
    """Gaussian blur of standard deviation `amount` in 0..100 pixels, along rows and columns.

    The kernel is sampled at whole pixels up to four standard deviations, and sums to 1. Beyond an edge the image is
    mirrored, the edge pixel included (d c b a | a b c d | d c b a), so the mean of the image stays.
    """
    _within("blur", amount, 0, 100)
    down, across = (_blurring(size, amount).to(images.device) for size in images.shape[-2:])
    return (down @ images @ across.T).clamp(0, 1)


def jpeg(images: Tensor, amount: float, rows: Rows) -> Tensor:
    """Written by Pillow as JPEG of quality `amount`, a whole number in 1..100, and read again.

    Pillow's own settings: colours at half the resolution. Pixels are rounded to 256 levels first. The bits may differ
    between versions of the JPEG library.
    """
    _within("jpeg", amount, 1, 100)
    if amount != int(amount):
        raise ValueError(f"the quality of a JPEG is a whole number, not {amount:g}")
    if images.shape[1] not in (1, 3):
        raise ValueError(f"a JPEG has 1 or 3 channels, not {images.shape[1]}")
    levels = (images * 255).round().to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
    read = np.stack([_through_jpeg(image, int(amount)) for image in levels])
    return torch.from_numpy(read).permute(0, 3, 1, 2).to(images) / 255


SHIFTS: Mapping[str, Shift] = {
    "noise": noise,
    "contrast": contrast,
    "brightness": brightness,
    "blur": blur,
    "jpeg": jpeg,
}


def _blurring(size: int, sigma: float) -> Tensor:
    """The blur of one line as a matrix `[size, size]`: row i holds the weights that make pixel i."""
    if sigma == 0:
        return torch.eye(size, dtype=torch.float64)
    reach = int(4 * sigma + 0.5)
    offsets = torch.arange(-reach, reach + 1)
    kernel = (-0.5 * (offsets.to(torch.float64) / sigma).square()).exp()
    kernel /= kernel.sum()
    # A mirrored line repeats every 2 * size pixels, so a kernel wider than the image is reflected again and again.
    places = (torch.arange(size)[:, None] + offsets) % (2 * size)
    places = torch.minimum(places, 2 * size - 1 - places)
    matrix = torch.zeros(size, size, dtype=torch.float64)
    return matrix.scatter_add_(1, places, kernel.expand(size, -1))


def _through_jpeg(image: npt.NDArray[np.uint8], quality: int) -> npt.NDArray[np.uint8]:
    """One image uint8 `[H, W, C]` written and read."""
    try:
        from PIL import Image
    except ImportError:
        raise ImportError("images are written as JPEG by Pillow, which is missing: pip install pillow") from None
    file = io.BytesIO()
    Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image).save(file, "JPEG", quality=quality)
    with Image.open(file) as read:
        return np.array(read).reshape(image.shape)


def _stored(images: Tensor, top: float, like: Tensor) -> Tensor:
    """Images on 0..1 as they are stored: on 0..top, in the type of `like`, rounded to the nearest where it is uint8."""
    scaled = images * top
    return (scaled if like.is_floating_point() else scaled.round()).to(like.dtype)


def _top(data: Dataset) -> float:
    """The stored value of full brightness; `ValueError` where inputs are no images in 0..that."""
    images = data.inputs
    if images.ndim != 4 or images.numel() == 0:
        raise ValueError(f"{data.name}: changes act on images [N, C, H, W], not on inputs {list(images.shape)}")
    if data.scale is None and images.dtype != torch.uint8:
        raise ValueError(f"{data.name}: the range of float images is not known; give the data set a scale, such as 1.0")
    top = 255.0 if data.scale is None else data.scale
    low, high = images.min(), images.max()  # tensors, so that a float32 0.1 does not exceed a scale of 0.1
    if bool(low < 0) or bool(high > top):
        raise ValueError(f"{data.name}: pixels lie in {low:g}..{high:g}, beyond 0..{top:g}, which its scale says")
    return top if images.is_floating_point() else min(top, 255.0)


def _number(name: str, amount: float) -> float:
    if isinstance(amount, bool) or not isinstance(amount, (int, float)):
        raise TypeError(f"the amount of {name} must be a number, not {amount!r}")
    return float(amount)


def _within(name: str, amount: float, low: float, high: float) -> None:
    if not (math.isfinite(amount) and low <= amount <= high):
        wanted = f"finite and at least {low:g}" if high == math.inf else f"in {low:g}..{high:g}"
        raise ValueError(f"the amount of {name} must be {wanted}, not {amount:g}")
