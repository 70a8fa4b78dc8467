"""Labelled rows that something is fitted on: checked, flattened, without those that are to be ignored."""

import torch
from torch import Tensor

LEAST = 20
"""Fewest rows that a pool is fitted on; with many members, two for each."""


def targets_of(shape: torch.Size, y: Tensor, ignore_index: int) -> tuple[Tensor, Tensor]:
    """Which of the flattened rows count, bool `[N...]`, and the targets of these, int64 `[M]`.

    `shape` is `[N, ..., C]`, `y` is `[N, ...]`. Raises ValueError for another shape, a type that holds no indices,
    no row that counts, and targets that are no class.
    """
    if len(shape) < 2 or shape[:-1] != y.shape:
        raise ValueError(f"y must be {list(shape[:-1])} for these log-probabilities, not {list(y.shape)}")
    if y.is_floating_point() or y.is_complex() or y.dtype == torch.bool:
        raise ValueError(f"y must hold class indices of an integer type, not {y.dtype}")
    kept = y.reshape(-1).long() != ignore_index  # in uint8, -100 would be class 156
    targets = y.reshape(-1)[kept].long()
    if len(targets) == 0:
        raise ValueError("no row with a target is left to fit on")
    if int(targets.min()) < 0 or int(targets.max()) >= shape[-1]:
        raise ValueError(f"targets must be in 0..{shape[-1] - 1}, not {int(targets.min())}..{int(targets.max())}")
    return kept, targets


def fitting_rows(log_probs: Tensor, y: Tensor, ignore_index: int) -> tuple[Tensor, Tensor]:
    """Normalised rows `[K, M, C]` in float64 and their targets `[M]`, of members' `[K, N, ..., C]` and `y` `[N, ...]`.

    Raises TypeError for log-probabilities that are not floating point, ValueError for shapes that do not fit, fewer
    than max(20, 2 K) rows, NaN, +inf, rows in which a member holds every class impossible, and targets that all members
    hold impossible.
    """
    if not log_probs.is_floating_point():
        raise TypeError(f"log-probabilities must be floating point, not {log_probs.dtype}; convert them first")
    if log_probs.ndim < 3 or log_probs.shape[0] == 0:
        raise ValueError(f"log-probabilities must be [K, N, ..., C] with a member, not {list(log_probs.shape)}")
    members = len(log_probs)
    kept, targets = targets_of(log_probs.shape[1:], y, ignore_index)
    if len(targets) < (least := max(LEAST, 2 * members)):
        raise ValueError(f"{members} members need at least {least} labelled rows to fit on; got {len(targets)}")
    rows = log_probs.detach().reshape(members, -1, log_probs.shape[-1])[:, kept].to(torch.float64).log_softmax(-1)
    if bool(rows.isnan().any()):
        raise ValueError("the log-probabilities hold NaN, +inf, or a row without a possible class")
    if bool((lost := (at_targets(rows, targets) == -torch.inf).all(0)).any()):
        raise ValueError(f"all members hold the target of row {int(lost.nonzero()[0])} impossible: no finite NLL")
    return rows, targets


def at_targets(rows: Tensor, targets: Tensor) -> Tensor:
    """Log-probabilities of the targets `[K, M]` in rows `[K, M, C]`."""
    return rows.gather(-1, targets.expand(len(rows), -1)[..., None])[..., 0]


def check_members(outputs: Tensor, count: int) -> None:
    """Raise ValueError unless `outputs` `[K, ...]` come from as many members as the pool was fitted on."""
    if outputs.ndim == 0 or len(outputs) != count:
        raise ValueError(f"this pool was fitted on {count} members; got outputs {list(outputs.shape)}")


def check_classes(outputs: Tensor, count: int) -> None:
    """Raise ValueError unless outputs `[..., C]` have as many classes as the pool was fitted on."""
    if outputs.ndim < 2 or outputs.shape[-1] != count:
        raise ValueError(f"this pool was fitted on {count} classes; got outputs {list(outputs.shape)}")
