"""Second moments of layers' inputs, read in one run of the network over unlabelled batches.

    H = mean over positions of x x^T        float64 [blocks, d, d], blocks the groups of a convolution

x holds the d inputs of an output channel in the order of the weight's rows (`Layout.to_rows`): features of a linear
layer, padded windows of a convolution. tr(D H D^T) is the mean square of the output's error for weights moved by D.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn

from pluria.core.calling import Forward, call, check_batches, check_seen, moved, place
from pluria.core.model import roles, tensors, ties, working_copy
from pluria.numbers.grid import Layout

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
CHUNK = 2**24
"""Elements of windows that are held at a time."""


@dataclass(frozen=True, eq=False)
class Moments:
    """Second moments `[blocks, d, d]`, float64, by the state-dict names of weights, and how those weights lie.

    Output channels fall into `blocks` equal runs; those of run b read the inputs that `second[name][b]` speaks of.
    `positions` counts what was averaged, where that is known: fewer than d leave directions of which nothing is known.
    """

    second: Mapping[str, Tensor]
    layouts: Mapping[str, Layout]
    positions: Mapping[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, second in self.second.items():
            layout = self.layouts[name]
            blocks, inputs = second.shape[0], layout.inputs
            if second.shape != (blocks, inputs, inputs) or layout.rows % blocks:
                raise ValueError(f"{name!r}: moments of shape {tuple(second.shape)} do not fit {layout}")
        object.__setattr__(self, "second", MappingProxyType(dict(self.second)))
        object.__setattr__(self, "layouts", MappingProxyType(dict(self.layouts)))
        object.__setattr__(self, "positions", MappingProxyType(dict(self.positions)))

    def scant(self) -> dict[str, tuple[int, int]]:
        """Positions and d of the weights that saw fewer positions than their layer has inputs."""
        sizes = {name: (count, self.layouts[name].inputs) for name, count in self.positions.items()}
        return {name: (count, inputs) for name, (count, inputs) in sizes.items() if count < inputs}


def moments(model: nn.Module, inputs: Iterable[Any], *, forward: Forward = call) -> Moments:
    """Second moments of the inputs of every linear layer and convolution that `model` runs, over batches of `inputs`.

    forward  how the model is called with one batch; by default a tensor, a tuple of arguments or a dict of named ones.
             Inputs are moved to the model's device first

    Read from a copy in evaluation mode: the model is untouched. Names that are tied share the sum over all layers that
    use them. Left out are layers that never run, and weights that are used outside their layer: packed attention
    projections, recurrent cells, embeddings, transposed convolutions. A layer of d inputs takes d^2 float64 numbers.
    Raises ValueError where `inputs` is or holds nothing or a layer meets NaN or Inf, TypeError for one batch in place
    of several, for arrays that are no tensors, and for (inputs, targets).
    """
    check_batches(inputs)
    twin = working_copy(model)
    device, seen, first = place(twin), False, ties(twin)
    with watching(layers_of(twin), first) as sums, torch.no_grad():
        for batch in inputs:
            seen = True
            forward(twin, moved(batch, device, None))
    if not seen:
        raise ValueError("no inputs to take moments of; give one batch or more")
    if any(total.empty for total in sums.values()) and not any(total.count for total in sums.values()):
        raise ValueError("the batches hold no examples, so there is nothing to take moments of")
    found = {name: total.mean() for name, total in sums.items() if total.count}
    second = {name: found[one] for name, one in first.items() if one in found}
    role, own = roles(twin), tensors(twin)
    layouts = {name: role[name].layout(own[name].shape) for name in second}
    return Moments(second, layouts, {name: sums[first[name]].count for name in second})


@contextmanager
def watching(layers: Mapping[str, nn.Module], first: Mapping[str, str]) -> Iterator[dict[str, Sum]]:
    """Sums over the inputs of some layers while the block runs, by the first of the names that are tied."""
    sums: dict[str, Sum] = {}
    with ExitStack() as hooks:
        for name, layer in layers.items():
            watch = _watch(name, sums.setdefault(first[name], Sum()))
            hooks.callback(layer.register_forward_pre_hook(watch, with_kwargs=True).remove)
        yield sums


@dataclass
class Sum:
    """The running sum of x x^T, of how many positions, and whether inputs without any came by."""

    total: Tensor | None = None
    count: int = 0
    empty: bool = False

    def add(self, rows: Tensor) -> None:
        """Add positions `[n, blocks, d]`."""
        x = rows.to(torch.float64).transpose(0, 1)
        new = x.mT @ x
        self.total = new if self.total is None else self.total.add_(new)
        self.count += len(rows)

    def mean(self) -> Tensor:
        """The moments, symmetric to the last bit."""
        assert self.total is not None
        return (self.total + self.total.mT) / (2 * self.count)


def layers_of(model: nn.Module) -> dict[str, nn.Module]:
    """Layers whose inputs are taken, by the name of their weight."""
    own, found = tensors(model), dict[str, nn.Module]()
    for prefix, module in model.named_modules():
        name = f"{prefix}.weight" if prefix else "weight"
        # A weight that is computed from others (a parametrisation) has no name in the state dict.
        if name in own and (isinstance(module, (nn.Linear, *CONVOLUTIONS)) or _is_conv1d(module)):
            found[name] = module
    return found


def _is_conv1d(module: nn.Module) -> bool:
    """Whether it is the linear layer of Hugging Face that keeps its inputs first."""
    return type(module).__name__ == "Conv1D" and hasattr(module, "nf")


def _watch(name: str, total: Sum) -> Callable[[nn.Module, tuple[Any, ...], dict[str, Any]], None]:
    def hook(module: nn.Module, args: tuple[Any, ...], named: dict[str, Any]) -> None:
        x: Tensor = (args[0] if args else next(iter(named.values()))).detach()
        check_seen(x, name.rpartition(".")[0], wanted="moments")
        if not x.numel():
            total.empty = True
            return
        for rows in _positions(module, x):
            total.add(rows)

    return hook


def _positions(layer: nn.Module, x: Tensor) -> Iterator[Tensor]:
    """Inputs of the output channels at each position, `[n, blocks, d]`, a bounded number of them at a time."""
    if not isinstance(layer, CONVOLUTIONS):
        rows = x.reshape(-1, 1, x.shape[-1])
        yield from torch.split(rows, max(1, CHUNK // x.shape[-1]))
        return
    axes = len(layer.kernel_size) + 1
    for part in _pieces(_windows(layer, x), axes):
        yield part.reshape(math.prod(part.shape[:axes]), layer.groups, -1)


def _windows(layer: nn.Module, x: Tensor) -> Tensor:
    """What each position of a convolution reads: a view `[N, *positions, channels, *kernel]` of the padded inputs."""
    assert isinstance(layer, CONVOLUTIONS)
    kernel, gaps = layer.kernel_size, layer.dilation
    x = x if x.ndim == len(kernel) + 2 else x.unsqueeze(0)
    mode = "constant" if layer.padding_mode == "zeros" else layer.padding_mode
    x = nn.functional.pad(x, _padding(layer.padding, kernel, gaps), mode=mode)
    for axis, (size, step, gap) in enumerate(zip(kernel, layer.stride, gaps, strict=True)):
        x = x.unfold(2 + axis, gap * (size - 1) + 1, step)[..., ::gap]
    return x.movedim(1, 1 + len(kernel))


def _padding(padding: str | tuple[int, ...], kernel: tuple[int, ...], gaps: tuple[int, ...]) -> list[int]:
    """Elements before and after each axis, the last axis first."""
    if padding == "same":
        totals = [gap * (size - 1) for size, gap in zip(kernel, gaps, strict=True)]
        ends = [(total // 2, total - total // 2) for total in totals]
    else:
        ends = [(0, 0)] * len(kernel) if isinstance(padding, str) else [(size, size) for size in padding]
    return [size for end in reversed(ends) for size in end]


def _pieces(windows: Tensor, axes: int, axis: int = 0) -> Iterator[Tensor]:
    """The windows in views of at most CHUNK elements, cut along the first `axes` axes."""
    step = max(1, CHUNK * windows.shape[axis] // max(windows.numel(), 1))
    for piece in torch.split(windows, step, dim=axis):
        if piece.numel() <= CHUNK or axis + 1 == axes:
            yield piece
        else:
            yield from _pieces(piece, axes, axis + 1)
