"""predict: outputs of an ensemble's members on batches, one working copy of the model whatever the number of members.

Block   example ids [n], member numbers [k], outputs [k, n, ..., C] float32, targets [n, ...] or None
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import torch
from torch import Tensor, nn

from pluria.core.calling import call, moved, place
from pluria.core.ensemble import Ensemble
from pluria.core.model import tensors, working_copy
from pluria.core.params import check_fit
from pluria.predict.batches import Batches, first, logits, refuse_unstable
from pluria.predict.linear import in_tiles
from pluria.predict.vmap import side_by_side

View = Callable[[Any], Any]
Backend = Literal["loop", "vmap", "triton"]


@dataclass(frozen=True)
class Block:
    """Outputs `[k, n, ..., C]` (float32, on the CPU) of some members on some examples; the class axis is last."""

    ids: range
    members: tuple[int, ...]
    outputs: Tensor
    targets: Tensor | None


def identity(inputs: Any) -> Any:
    """The view that changes nothing."""
    return inputs


class Runner(Protocol):
    """Blocks of some members' outputs, or of all, on any batches."""

    def __call__(self, batches: Batches, members: Sequence[int] | None = None) -> Iterator[Block]: ...


def predict(
    model: nn.Module,
    ensemble: Ensemble,
    batches: Batches,
    *,
    inputs: Callable[[Any], tuple[Any, Tensor | None]] = first,
    output: Callable[[Any], Tensor] = logits,
    class_axis: int = -1,
    views: Sequence[View] = (identity,),
    block: int = 1,
    backend: Backend = "loop",
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
    channels_last: bool = False,
) -> Iterator[Block]:
    """Blocks of outputs: `block` members at a time, each over all batches; the model itself is not touched.

    batches     re-iterable and unshuffled: they are gone through once for each block of members
    inputs      splits a batch into (inputs, targets); inputs may be a tensor, a tuple of arguments or a dict
    output      finds the tensor in what the model returns
    class_axis  where the classes lie in that tensor, the batch axis counted; they are moved last
    views       member number i sees views[i mod V](inputs)
    backend     "loop": members are written in place into one working copy; "vmap": a block side by side, for small
                models (equal to the loop within float32 rounding); "triton": like vmap, with linear layers that read
                their weights once for up to eight members of the block, meant for GPUs
    device, dtype, channels_last   of the working copy; outputs come back in float32 on the CPU. Floating inputs are
                cast to `dtype`, or to that of the network's parameters where they have one

    Raises CheckpointError where names or shapes of the ensemble are not the model's, ValueError for a bad option, a
    class axis that the outputs lack, or a DataLoader that shuffles, TypeError for an iterator.
    """
    refuse_unstable(batches)
    return runner(
        model, ensemble, inputs=inputs, output=output, class_axis=class_axis, views=views, block=block, backend=backend,
        device=device, dtype=dtype, channels_last=channels_last,
    )(batches)  # fmt: skip


def runner(
    model: nn.Module,
    ensemble: Ensemble,
    *,
    inputs: Callable[[Any], tuple[Any, Tensor | None]] = first,
    output: Callable[[Any], Tensor] = logits,
    class_axis: int = -1,
    views: Sequence[View] = (identity,),
    block: int = 1,
    backend: Backend = "loop",
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
    channels_last: bool = False,
) -> Runner:
    """`predict` without its batches: the working copy is made once and serves as many batches as are asked for.

    Arguments and errors are those of `predict`. It takes batches and, where not all are wanted, numbers of members.
    Batches may change between two members: whoever asks for them again gets what they hold by then. One thread at a
    time.
    """
    if block < 1 or not views:
        raise ValueError(f"a block has one member or more and there is at least one view; got {block} and {len(views)}")
    if backend not in ("loop", "vmap", "triton"):
        raise ValueError(f"a back end is 'loop', 'vmap' or 'triton'; got {backend!r}")
    check_fit(ensemble.outline(), tensors(model), what="the ensemble")
    where = place(model) if device is None else torch.device(device)
    twin = working_copy(model, device=where, dtype=dtype, channels_last=channels_last)
    run = {"loop": _one_by_one, "vmap": side_by_side, "triton": in_tiles}[backend](twin, ensemble)
    to = (where, dtype or _dtype(twin))

    def some(batches: Batches, members: Sequence[int] | None = None) -> Iterator[Block]:
        chosen = ensemble.members if members is None else tuple(members)
        return _blocks(run, chosen, batches, inputs, output, class_axis, views, block, to)

    return some


Run = Callable[[Sequence[int], Sequence[Any], Callable[[Any], Tensor]], Tensor]
"""(members, the inputs each member sees, output) -> [k, n, ...]"""


def _blocks(
    run: Run,
    members: tuple[int, ...],
    batches: Batches,
    inputs: Callable[[Any], tuple[Any, Tensor | None]],
    output: Callable[[Any], Tensor],
    class_axis: int,
    views: Sequence[View],
    block: int,
    to: tuple[torch.device, torch.dtype | None],
) -> Iterator[Block]:
    for start in range(0, len(members), block):
        chunk, seen = members[start : start + block], 0
        for batch in batches:
            # Targets go to the caller: made under inference mode they could not be used with autograd.
            x, targets = inputs(batch)
            # Inference mode is entered batch by batch: it must not leak into the caller between two blocks.
            with torch.inference_mode():
                x = moved(x, *to)
                each = [views[member % len(views)](x) for member in chunk]
                outputs = run(chunk, each, output).to("cpu", torch.float32)
                outputs = _classes_last(outputs, class_axis)
            outputs = outputs.clone() if outputs.is_inference() else outputs
            ids = range(seen, seen + outputs.shape[1])
            seen = ids.stop
            yield Block(ids, chunk, outputs, None if targets is None else torch.as_tensor(targets).cpu())


def _classes_last(outputs: Tensor, class_axis: int) -> Tensor:
    if class_axis == -1:
        return outputs
    axes = outputs.ndim - 1
    if not -axes <= class_axis < axes or class_axis % axes == 0:
        raise ValueError(
            f"the class axis of outputs {tuple(outputs.shape[1:])} is one of 1..{axes - 1}, axis 0 holds the examples; "
            f"got {class_axis}"
        )
    return outputs.movedim(class_axis % axes + 1, -1)


def _dtype(model: nn.Module) -> torch.dtype | None:
    """The floating dtype of the model's parameters, None where they have none or several."""
    found = {value.dtype for value in model.parameters() if value.is_floating_point()}
    return found.pop() if len(found) == 1 else None


def _one_by_one(twin: nn.Module, ensemble: Ensemble) -> Run:
    own, restore = tensors(twin), _scratch(twin)
    held: list[int] = []

    def run(members: Sequence[int], each: Sequence[Any], output: Callable[[Any], Tensor]) -> Tensor:
        rows = []
        for member, x in zip(members, each, strict=True):
            if held != [member]:
                ensemble.write(member, own)
                held[:] = [member]
            restore()
            rows.append(output(call(twin, x)).to(torch.float32))
        return torch.stack(rows)

    return run


def _scratch(twin: nn.Module) -> Callable[[], None]:
    """Puts buffers that no checkpoint holds (caches) back: no member, batch or block may see what another left."""
    kept = [
        (module, name, value.clone())
        for module in twin.modules()
        for name, value in module.named_buffers(recurse=False)
        if name in module._non_persistent_buffers_set
    ]

    def restore() -> None:
        for module, name, value in kept:
            setattr(module, name, value.clone())

    return restore
