"""A labelled data set in memory: inputs as they were read, and the steps that make them fit a network.

    normalised = (inputs / scale - mean) / std       inputs [N, ...] uint8 or float, targets [N] or [N, ...] int64

Images are kept as uint8 `[N, C, H, W]`, a quarter of their float32 size; `mean` and `std` hold one number, or one for
each channel (axis 1).
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from pluria.core.errors import DataError

IGNORED = -100
"""The target of an example, or of one place in a dense target, that no loss and no score counts."""


@dataclass(frozen=True, eq=False)
class Dataset:
    """N examples with their targets, the names of the C classes, and how inputs are normalised.

    `scale=None` means 255 for uint8 inputs and 1 for floating point. DataError where a target lies outside 0..C-1 and
    is not -100, where inputs and targets differ in length, where there is no example, and where an input is NaN or
    infinite; ValueError where `scale`, `mean` or `std` do not fit.

    >>> data = Dataset(torch.tensor([[0], [255]], dtype=torch.uint8), torch.tensor([0, 1]), ("dark", "light"), "two")
    >>> [x.tolist() for x, y in data.batches(1)]
    [[[0.0]], [[1.0]]]
    """

    inputs: Tensor
    targets: Tensor
    classes: tuple[str, ...]
    name: str
    scale: float | None = None
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)

    def __post_init__(self) -> None:
        _check_lengths(self)
        _check_targets(self.targets, classes=len(self.classes), name=self.name)
        _check_inputs(self.inputs, name=self.name)
        _check_scaling(self)

    def __len__(self) -> int:
        return len(self.inputs)

    def normalise(self, inputs: Tensor) -> Tensor:
        """Inputs as stored -> float32 inputs as the network takes them: `(inputs / scale - mean) / std`."""
        scale = (255.0 if inputs.dtype == torch.uint8 else 1.0) if self.scale is None else self.scale
        mean, std = (self._along_channels(values, inputs) for values in (self.mean, self.std))
        return (inputs.to(torch.float32) / scale - mean) / std

    def batches(self, size: int) -> "Batches":
        """Batches `(inputs float32 normalised, targets)` of `size` examples in stored order, as often as asked for."""
        return Batches(self, size)

    def take(self, rows: Tensor | Sequence[int] | slice) -> "Dataset":
        """The examples at some rows, in that order; a slice shares memory. IndexError for a row that is not there."""
        if not isinstance(rows, slice):
            rows = torch.as_tensor(rows) if len(rows) else torch.empty(0, dtype=torch.int64)
        return replace(self, inputs=self.inputs[rows], targets=self.targets[rows])

    def split_half(self) -> tuple["Dataset", "Dataset"]:
        """(calibration, figures): every other row of each class, so what is fitted never sees the rows that count.

        Rows are sorted by target (stably) and dealt out alternately. The halves then differ by at most one row overall
        and in every class, whether a file is sorted by class or cycles through the classes, where halves and odd/even
        rows fail. Dense targets are dealt by row. DataError with fewer than two rows.
        """
        if len(self) < 2:
            raise DataError(f"{self.name}: {len(self)} example cannot be split into calibration and figures")
        order = self.targets.argsort(stable=True) if self.targets.ndim == 1 else torch.arange(len(self))
        calibration, figures = (self.take(order[start::2].sort().values) for start in (0, 1))
        return (
            replace(calibration, name=f"{self.name} (calibration half)"),
            replace(figures, name=f"{self.name} (figures half)"),
        )

    def _along_channels(self, values: tuple[float, ...], inputs: Tensor) -> Tensor:
        shape = (1, -1, *[1] * (inputs.ndim - 2)) if inputs.ndim > 1 else (-1,)
        return torch.tensor(values, dtype=torch.float32, device=inputs.device).reshape(shape)


@dataclass(frozen=True, eq=False)
class Batches:
    """A re-iterable over a data set's examples in stored order; the last batch may be smaller."""

    dataset: Dataset
    size: int

    def __post_init__(self) -> None:
        if self.size < 1:
            raise ValueError(f"a batch holds at least one example, not {self.size}")

    def __len__(self) -> int:
        return math.ceil(len(self.dataset) / self.size)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        data = self.dataset
        for start in range(0, len(data), self.size):
            part = slice(start, start + self.size)
            yield data.normalise(data.inputs[part]), data.targets[part]


def _check_lengths(data: Dataset) -> None:
    if data.inputs.ndim == 0 or data.targets.ndim == 0:
        raise DataError(f"{data.name}: inputs and targets need a first axis of examples")
    if len(data.inputs) != len(data.targets):
        raise DataError(f"{data.name}: {len(data.inputs)} inputs but {len(data.targets)} targets")
    if len(data.inputs) == 0:
        raise DataError(f"{data.name}: there is no example")


def _check_targets(targets: Tensor, *, classes: int, name: str) -> None:
    if targets.dtype != torch.int64:
        raise DataError(f"{name}: targets are {targets.dtype}, they must be class numbers of type torch.int64")
    wrong = ((targets < 0) | (targets >= classes)) & (targets != IGNORED)
    if wrong.any():
        place = tuple(wrong.nonzero()[0].tolist())
        found = f"{name}: target {int(targets[place])} in row {place[0]}"
        if targets[place] < 0:
            raise DataError(f"{found} is negative; classes are numbered from 0 ({IGNORED} means ignored)")
        raise DataError(f"{found}, but {classes} classes are numbered 0..{classes - 1} ({IGNORED} means ignored)")


def _check_inputs(inputs: Tensor, *, name: str) -> None:
    if inputs.dtype == torch.uint8:
        return
    if not inputs.is_floating_point():
        raise DataError(f"{name}: inputs are {inputs.dtype}; cast them to uint8 (images, 0..255) or to float32")
    finite = inputs.isfinite().reshape(len(inputs), -1).all(dim=1)
    if not finite.all():
        rows = (~finite).nonzero().flatten().tolist()
        raise DataError(f"{name}: NaN or infinite inputs in {len(rows)} rows, the first is row {rows[0]}")


def _check_scaling(data: Dataset) -> None:
    channels = data.inputs.shape[1] if data.inputs.ndim > 1 else 1
    for word, values in (("mean", data.mean), ("std", data.std)):
        if len(values) not in (1, channels) or not all(map(math.isfinite, values)):
            raise ValueError(f"{data.name}: {word} needs 1 or {channels} finite numbers, not {values}")
    if min(data.std) <= 0 or (data.scale is not None and not data.scale > 0):
        raise ValueError(f"{data.name}: scale and std must be positive, not {data.scale} and {data.std}")
