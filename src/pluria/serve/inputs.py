"""From the body of a request to inputs `[N, ...]` as the network takes them: JSON, a `.npy` file, or an image.

inputs = (numbers / scale - mean) / std        scale: 255 for bytes and images, 1 for other numbers, unless told
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from pluria.core.errors import DataError
from pluria.serve.refused import Refused
from pluria.zoo.dataset import Dataset

PIXELS = 2**24
"""The most pixels of an image: a small file can unfold into gigabytes."""

CHANNELS = {1: "L", 3: "RGB"}
NPY_HEADS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}


@dataclass(frozen=True)
class Wanted:
    """One example: its shape without the axis of examples, and how its numbers are scaled."""

    shape: tuple[int, ...]
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    scale: float | None = None

    def __post_init__(self) -> None:
        if not self.shape or min(self.shape) < 1:
            raise ValueError(f"the shape of one example is one positive number or more; got {list(self.shape)}")
        self.scaled(torch.zeros((1, *self.shape)))

    @property
    def image(self) -> bool:
        """Whether one example is an image: `[1, H, W]` or `[3, H, W]`."""
        return len(self.shape) == 3 and self.shape[0] in CHANNELS

    @property
    def words(self) -> str:
        """What inputs have to be, for a message."""
        return f"wanted [N, {', '.join(map(str, self.shape))}], uint8 or floating point"

    def scaled(self, inputs: Tensor) -> Tensor:
        """Inputs as the network takes them, float32. DataError for NaN and Inf, ValueError for a bad mean or std."""
        options: dict[str, Any] = {"scale": self.scale, "mean": self.mean, "std": self.std}
        rows = Dataset(inputs, torch.zeros(len(inputs), dtype=torch.int64), ("",), "inputs", **options)
        return rows.normalise(inputs)


def read_inputs(body: bytes, kind: str, wanted: Wanted) -> Tensor:
    """Inputs float32 `[N, *shape]` of a body with that content type.

    Refused: 400 what is not what its type says, 413 too many pixels, 415 an unknown type, 422 another shape, another
    dtype, no example, NaN or Inf.
    """
    name = kind.partition(";")[0].strip().lower()
    if name not in READERS:
        known = [one for one in READERS if wanted.image or not one.startswith("image/")]
        raise Refused(415, f"the content type is {name or 'missing'}; wanted one of {', '.join(known)}")
    stored = READERS[name](body, wanted)
    if tuple(stored.shape[1:]) != wanted.shape or stored.ndim == 0 or len(stored) == 0:
        raise Refused(422, f"inputs have the shape {list(stored.shape)}; {wanted.words}")
    try:
        return wanted.scaled(stored)
    except DataError as error:
        raise Refused(422, f"{error}; {wanted.words}, all finite") from None


def _from_json(body: bytes, wanted: Wanted) -> Tensor:
    try:
        held = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise Refused(400, f'the body is no JSON ({error}); wanted {{"inputs": [...]}}') from None
    if not isinstance(held, dict) or "inputs" not in held:
        raise Refused(400, 'the body has no "inputs"; wanted {"inputs": [...]}, one nested list for each example')
    if unknown := sorted(set(held) - {"inputs"}):
        raise Refused(400, f"the body also holds {', '.join(map(repr, unknown))}; wanted only 'inputs'")
    try:
        found = np.array(held["inputs"])
    except (ValueError, OverflowError, RecursionError):
        raise Refused(422, f"inputs are ragged or too deep: their lists differ in length; {wanted.words}") from None
    if found.dtype.kind not in "iuf":
        raise Refused(422, f"inputs are not all numbers; {wanted.words}")
    return torch.from_numpy(_single(found))


def _from_npy(body: bytes, wanted: Wanted) -> Tensor:
    shape, by_column, dtype, start = _npy_head(body)
    if dtype != np.uint8 and dtype.kind != "f":
        raise Refused(422, f"inputs are {dtype}; {wanted.words}")
    # Compared before anything is made: a head of a few bytes can ask for terabytes.
    if (held := len(body) - start) != (asked := math.prod(shape) * dtype.itemsize):
        raise Refused(400, f"the .npy file has {held} bytes of numbers, its head asks for {asked}")
    found = np.frombuffer(body, dtype, offset=start).reshape(shape, order="F" if by_column else "C")
    return torch.from_numpy(found.copy() if dtype == np.uint8 else _single(found))


def _npy_head(body: bytes) -> tuple[tuple[int, ...], bool, np.dtype[Any], int]:
    """Shape, order, dtype, and where the numbers begin."""
    stream = BytesIO(body)
    try:
        version = np.lib.format.read_magic(stream)
        shape, by_column, dtype = NPY_HEADS[version](stream)
    except (ValueError, KeyError, SyntaxError, TypeError, UnicodeError, RecursionError) as error:
        line = (str(error).splitlines() or [""])[0]
        raise Refused(400, f"the body is no .npy file of numbers ({line})") from None
    return shape, by_column, dtype, stream.tell()


def _single(numbers: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    """In float32; what is too large for it becomes infinite, and is refused as that."""
    with np.errstate(over="ignore"):
        return np.array(numbers, dtype=np.float32, order="C")


def _from_image(body: bytes, wanted: Wanted) -> Tensor:
    if not wanted.image:
        raise Refused(415, f"one example has the shape {list(wanted.shape)}, which is no image; send JSON or .npy")
    from PIL import Image

    try:
        with Image.open(BytesIO(body), formats=("PNG", "JPEG")) as image:
            return _pixels(image, wanted)
    except (OSError, SyntaxError, ValueError, EOFError, Warning, Image.DecompressionBombError) as error:
        raise Refused(400, f"the body cannot be read as a PNG or JPEG image ({error})") from None


def _pixels(image: Any, wanted: Wanted) -> Tensor:
    from PIL import Image

    if math.prod(image.size) > PIXELS:
        raise Refused(413, f"the image has {image.size[0]} x {image.size[1]} pixels; at most {PIXELS:,} are read")
    if image.mode.startswith(("I", "F")):
        raise Refused(422, f"the image has mode {image.mode}, more than 8 bits a channel; convert it first")
    channels, height, width = wanted.shape
    pixels = image.convert(CHANNELS[channels])
    if pixels.size != (width, height):
        pixels = pixels.resize((width, height), Image.Resampling.BILINEAR)
    values = torch.from_numpy(np.array(pixels))
    return (values[None] if channels == 1 else values.permute(2, 0, 1)).unsqueeze(0)


Reader = Callable[[bytes, Wanted], Tensor]
READERS: dict[str, Reader] = {
    "application/json": _from_json,
    "application/octet-stream": _from_npy,
    "application/x-npy": _from_npy,
    "image/png": _from_image,
    "image/jpeg": _from_image,
}
"""What reads a body, by its content type."""
