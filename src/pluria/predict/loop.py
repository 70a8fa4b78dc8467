"""predict: outputs of an ensemble's members on batches, one working copy of the model whatever the number of members.

Block   example ids [n], member numbers [k], outputs [k, n, ..., C] float32, targets [n, ...] or None
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence, Sized
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import torch
from torch import Tensor, nn

from pluria.core.calling import moved, place
from pluria.core.ensemble import Ensemble
from pluria.core.memory import keep_freed
from pluria.core.model import tensors
from pluria.core.params import check_fit
from pluria.predict.backends import NAMES, PLAIN, Name, Run, Storage, floating
from pluria.predict.backends import backend as make
from pluria.predict.batches import Batches, first, logits, refuse_unstable
from pluria.predict.choose import MOST, Choice, fastest
from pluria.predict.pieces import apart, joined, together

View = Callable[[Any], Any]
Backend = Name | Literal["auto"] | Choice
TOLERANCE = 0.02
"""The largest error of a back end that `auto` takes, see `choose.py`: that of bfloat16 is some 1e-3."""


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
    tolerance: float = TOLERANCE,
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
    backend     "loop": members are written in place into one working copy. "auto": the fastest of several ways on
                the first batch, of those that agree with the loop within `tolerance`; or one of them by name (see
                `backends.py`), or a `Choice` of `choose_backend`
    device, dtype, channels_last   of the working copy; outputs come back in float32 on the CPU. Floating inputs are
                cast to `dtype`, or to that of the network's parameters where they have one

    Raises CheckpointError where names or shapes of the ensemble are not the model's, ValueError for a bad option, a
    class axis that the outputs lack, or a DataLoader that shuffles, TypeError for an iterator.
    """
    refuse_unstable(batches)
    return runner(
        model, ensemble, inputs=inputs, output=output, class_axis=class_axis, views=views, block=block, backend=backend,
        tolerance=tolerance, device=device, dtype=dtype, channels_last=channels_last,
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
    tolerance: float = TOLERANCE,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
    channels_last: bool = False,
) -> Runner:
    """`predict` without its batches: the working copy is made once and serves as many batches as are asked for.

    Arguments and errors are those of `predict`. It takes batches and, where not all are wanted, numbers of members;
    ValueError for one that the ensemble does not have.
    Batches may change between two members: whoever asks for them again gets what they hold by then. One thread at a
    time.
    """
    if block < 1 or not views:
        raise ValueError(f"a block has one member or more and there is at least one view; got {block} and {len(views)}")
    name = backend.backend if isinstance(backend, Choice) else backend
    if name not in (*NAMES, "auto"):
        raise ValueError(f"a back end is one of {', '.join((*NAMES, 'auto'))}; got {name!r}")
    if name not in PLAIN and (channels_last or dtype not in (None, torch.float32)):
        raise ValueError(f"back end {name!r} keeps its own dtype and order; leave out `dtype` and `channels_last`")
    check_fit(ensemble.outline(), tensors(model), what="the ensemble")
    where = place(model) if device is None else torch.device(device)
    storage, to = Storage(where, dtype, channels_last), (where, dtype or floating(model))
    made: list[tuple[Run, int | None]] = [] if backend == "auto" else [_named(backend, model, ensemble, storage)]

    def some(batches: Batches, members: Sequence[int] | None = None) -> Iterator[Block]:
        wanted = ensemble.members if members is None else tuple(members)
        if odd := sorted(set(wanted) - set(ensemble.members)):
            raise ValueError(f"the ensemble has no member {odd[0]}; its members are {list(ensemble.members)[:8]}")
        if not made:
            choice = _chosen(model, ensemble, batches, inputs, output, views, block, tolerance, storage, to)
            made.append(_named(choice, model, ensemble, storage))
        return _blocks(*made[0], wanted, batches, inputs, output, class_axis, views, block, to)

    return some


def choose_backend(
    model: nn.Module,
    ensemble: Ensemble,
    batches: Batches,
    *,
    inputs: Callable[[Any], tuple[Any, Tensor | None]] = first,
    output: Callable[[Any], Tensor] = logits,
    views: Sequence[View] = (identity,),
    block: int = 1,
    tolerance: float = TOLERANCE,
    device: torch.device | str | None = None,
) -> Choice:
    """What `predict(backend="auto")` would take for these batches, and why; give it to `predict` as its `backend`.

    Arguments and errors are those of `predict`. Only the first batch is looked at. Times differ from run to run, and so
    may the choice: keep it where equal bits are wanted.
    """
    refuse_unstable(batches)
    check_fit(ensemble.outline(), tensors(model), what="the ensemble")
    where = place(model) if device is None else torch.device(device)
    to = (where, floating(model))
    return _chosen(model, ensemble, batches, inputs, output, views, block, tolerance, Storage(where, None), to)


def _named(backend: Name | Choice, model: nn.Module, ensemble: Ensemble, storage: Storage) -> tuple[Run, int | None]:
    """What runs members, and how many examples at a time, None for batches as they are."""
    choice = backend if isinstance(backend, Choice) else Choice(backend)
    return make(choice.backend, model, ensemble, storage, batch=choice.batch), choice.batch


def _chosen(
    model: nn.Module,
    ensemble: Ensemble,
    batches: Batches,
    inputs: Callable[[Any], tuple[Any, Tensor | None]],
    output: Callable[[Any], Tensor],
    views: Sequence[View],
    block: int,
    tolerance: float,
    storage: Storage,
    to: tuple[torch.device, torch.dtype | None],
) -> Choice:
    """The choice for the first of some batches, and those behind it that may be run with it."""
    leading = next(together((moved(inputs(batch)[0], *to) for batch in batches), MOST, lambda x: x), None)
    if leading is None:
        return Choice("loop", tried=("nothing tried: there was no batch",))
    with torch.inference_mode():
        ends = (ensemble.members[0], ensemble.members[-1])
        each = [[views[member % len(views)](x) for x in leading] for member in ends]
    count = len(batches) if isinstance(batches, Sized) else None
    return fastest(model, ensemble, each, output, storage, block=block, batches=count, tolerance=tolerance)


def _blocks(
    run: Run,
    size: int | None,
    members: tuple[int, ...],
    batches: Batches,
    inputs: Callable[[Any], tuple[Any, Tensor | None]],
    output: Callable[[Any], Tensor],
    class_axis: int,
    views: Sequence[View],
    block: int,
    to: tuple[torch.device, torch.dtype | None],
) -> Iterator[Block]:
    keep_freed()
    for start in range(0, len(members), block):
        chunk, seen = members[start : start + block], 0
        # Targets go to the caller: made under inference mode they could not be used with autograd.
        for group in together(map(inputs, batches), size, lambda pair: pair[0]):
            # Inference mode is entered batch by batch: it must not leak into the caller between two blocks.
            with torch.inference_mode():
                xs = [moved(x, *to) for x, _ in group]
                each = [joined([views[member % len(views)](x) for x in xs]) for member in chunk]
                outputs = run(chunk, each, output).to("cpu", torch.float32)
                found = [_classes_last(part, class_axis) for part in apart(outputs, xs)]
            for part, (_, targets) in zip(found, group, strict=True):
                part = part.clone() if part.is_inference() else part
                ids = range(seen, seen + part.shape[1])
                seen = ids.stop
                yield Block(ids, chunk, part, None if targets is None else torch.as_tensor(targets).cpu())


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
