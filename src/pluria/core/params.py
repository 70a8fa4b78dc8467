"""Named tensors of one model, and the checks every verb makes on them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

from pluria.core.errors import CheckpointError

Params = Mapping[str, Tensor]
"""Names to tensors, as in a state dict: parameters and buffers. Tied names hold the same tensor object."""

SHOWN = 5


def params_of(model: nn.Module) -> dict[str, Tensor]:
    """A copy of the model's state dict, detached; tied names share one tensor, non-persistent buffers are left out."""
    copies: dict[int, Tensor] = {}
    state = model.state_dict(keep_vars=True)
    return {name: copies.setdefault(id(value), value.detach().clone()) for name, value in state.items()}


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
    problems = [_listed(missing, "missing"), _listed(unknown, "unknown"), _listed(shapes, "of another shape")]
    if any(problems):
        raise CheckpointError(
            f"{what} does not fit the network: {'; '.join(filter(None, problems))}. "
            "Build the network with the arguments it was trained with, or give its own checkpoint"
        )


def check_finite(params: Params, *, what: str = "the checkpoint") -> None:
    """Raise CheckpointError naming the first tensors that hold NaN or Inf."""
    bad = [name for name, value in params.items() if value.is_floating_point() and not _finite(value)]
    if bad:
        raise CheckpointError(
            f"NaN or Inf in {what}: {_listed(bad, 'not finite')}. Give a checkpoint from before it diverged"
        )


def check_same(several: Iterable[Params]) -> None:
    """Raise CheckpointError unless all have the names and shapes of the first."""
    first: Params | None = None
    for number, params in enumerate(several):
        first = params if first is None else first
        check_fit(params, first, what=f"checkpoint number {number}")


def _finite(value: Tensor) -> bool:
    # 8-bit floats cannot be asked by themselves.
    return bool(torch.isfinite(value.to(torch.float32) if value.element_size() == 1 else value).all())


def _listed(names: list[str], what: str) -> str:
    if not names:
        return ""
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return f"{len(names)} {what} ({', '.join(names[:SHOWN])}{more})"
