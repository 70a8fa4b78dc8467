"""Named tensors of one model, and the checks every verb makes on them."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence

import torch
from torch import Tensor, nn

from pluria.core.errors import CheckpointError

Params = Mapping[str, Tensor]
"""Names to tensors, as in a state dict: parameters and buffers. Tied names hold the same memory."""

SHOWN = 5

CHUNK = 2**22
"""Elements that are asked at a time whether they are finite."""


def params_of(model: nn.Module) -> dict[str, Tensor]:
    """A copy of the model's state dict, detached; tied names share one tensor, non-persistent buffers are left out."""
    return copied(model.state_dict(keep_vars=True))


def copied(params: Params) -> dict[str, Tensor]:
    """Copies of named tensors, detached; names that share their memory share one copy."""
    held, copies = dict(params), dict[Hashable, Tensor]()
    for value in held.values():
        if memory(value) not in copies:
            copies[memory(value)] = value.detach().clone()
    return {name: copies[memory(value)] for name, value in held.items()}


def memory(value: Tensor) -> Hashable:
    """Equal for tensors that are one and the same memory; a view of a part of another is not.

    A plain state dict has a new tensor object for each name, so objects do not tell which names are tied. A tensor
    without memory of its own (empty, or on `meta`) is equal to itself alone. Only for tensors that are kept alive.
    """
    if value.is_meta or not value.numel():
        return id(value)
    return value.data_ptr(), value.shape, value.stride(), value.dtype, value.device


def check_fit(params: Params, wanted: Params, *, what: str = "the checkpoint") -> None:
    """Raise CheckpointError unless names and shapes of `params` are those of `wanted`; the first few are listed.

    Batch norm's count of batches may be missing: old checkpoints lack it, and evaluation does not read it.
    """
    missing = [name for name in wanted if name not in params and not name.endswith("num_batches_tracked")]
    unknown = [name for name in params if name not in wanted]
    shapes = [
        f"{name} has {tuple(params[name].shape)}, wanted {tuple(value.shape)}"
        for name, value in wanted.items()
        if name in params and params[name].shape != value.shape
    ]
    problems = [listed(missing, "missing"), listed(unknown, "unknown"), listed(shapes, "of another shape")]
    if any(problems):
        raise CheckpointError(
            f"{what} does not fit the network: {'; '.join(filter(None, problems))}. "
            "Build the network with the arguments it was trained with, or give its own checkpoint"
        )


def check_finite(params: Params, *, what: str = "the checkpoint") -> None:
    """Raise CheckpointError naming the first tensors that hold NaN or Inf.

    A tensor of zeros and -Inf alone passes: it is a mask for attention.
    """
    bad = [name for name, value in params.items() if value.is_floating_point() and not finite(value)]
    if bad:
        raise CheckpointError(
            f"NaN or Inf in {what}: {listed(bad, 'not finite')}. Give a checkpoint from before it diverged"
        )


def check_same(several: Iterable[Params]) -> None:
    """Raise CheckpointError unless all have the names and shapes of the first."""
    first: Params | None = None
    for number, params in enumerate(several):
        first = params if first is None else first
        check_fit(params, first, what=f"checkpoint number {number}")


def finite(value: Tensor) -> bool:
    """Whether a tensor has no NaN and no Inf, or is a mask for attention: of zeros and -Inf alone."""
    # 8-bit floats cannot be asked by themselves.
    if value.element_size() == 1:
        value = value.to(torch.float32)
    # In parts: the answers for a whole tensor take several times its memory.
    parts = torch.split(value.reshape(-1), CHUNK)
    return all(bool(torch.isfinite(part).all()) for part in parts) or all(
        bool(((part == 0) | torch.isneginf(part)).all()) for part in parts
    )


def listed(names: Sequence[str], what: str) -> str:
    """How many there are, of what kind, and the first of them; "" where there are none."""
    if not names:
        return ""
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return f"{len(names)} {what} ({', '.join(names[:SHOWN])}{more})"
