"""Rows to score: dense outputs made flat, padding dropped, targets checked.

A row is one prediction with one target. Dense outputs `[K, N, ..., C]` with targets `[N, ...]` (pixels, tokens) become
`[K, M, C]` and `[M]`, where M counts the targets that are not `ignore_index`. The order is that of the targets.
"""

import torch
from torch import Tensor

IGNORED = -100


def flatten(outputs: Tensor, y: Tensor, *, ignore_index: int = IGNORED) -> tuple[Tensor, Tensor]:
    """Dense outputs `[K, N, ..., C]` and class indices `[N, ...]` as `[K, M, C]` and `[M]`, ignored targets dropped.

    Pooled outputs `[N, ..., C]` go in as `pooled[None]`. Refused with `ValueError`: shapes that do not fit, targets
    that are no integers, a target that is neither a class nor `ignore_index` (the first one is named).

    >>> outputs, y = flatten(torch.zeros(2, 1, 3, 5), torch.tensor([[4, -100, 0]]))
    >>> outputs.shape, y
    (torch.Size([2, 2, 5]), tensor([4, 0]))
    """
    if outputs.ndim < 3 or outputs.shape[1:-1] != y.shape:
        raise ValueError(f"outputs [K, N, ..., C] and y [N, ...] do not fit: {list(outputs.shape)} and {list(y.shape)}")
    check_targets(y, outputs.shape[-1], ignore_index=ignore_index)
    kept = y.reshape(-1).long() != ignore_index  # in uint8, -100 would be class 156
    return outputs.reshape(outputs.shape[0], -1, outputs.shape[-1])[:, kept], y.reshape(-1)[kept].long()


def kept_rows(log_probs: Tensor, y: Tensor, *, ignore_index: int = IGNORED) -> tuple[Tensor, Tensor]:
    """Log-probabilities `[N, C]` and targets `[N]` as float64 `[M, C]` and `[M]`, ignored rows dropped, both checked.

    Refused with `ValueError`: what `flatten` refuses, NaN, and rows that are not normalised, since logits handed in for
    log-probabilities would give figures that look right.
    """
    if log_probs.ndim != 2 or log_probs.shape[:1] != y.shape:
        raise ValueError(f"log-probabilities [N, C] and y [N] do not fit: {list(log_probs.shape)} and {list(y.shape)}")
    flat, targets = flatten(log_probs[None], y, ignore_index=ignore_index)
    return checked_log_probs(flat[0]), targets


def checked_log_probs(log_probs: Tensor) -> Tensor:
    """Log-probabilities `[..., C]` in float64; `ValueError` if a row is not normalised or holds NaN."""
    wide = log_probs.to(torch.float64)
    slack = 1e-3 if torch.finfo(log_probs.dtype).eps < 1e-5 else 0.1  # 16-bit log-probabilities round by percents
    off = (~(wide.logsumexp(-1).abs() <= slack)).flatten().nonzero()  # negated, so that NaN is caught as well
    if len(off):
        found = f"row {int(off[0])} holds NaN or is not normalised"
        raise ValueError(f"{found}: scores take pooled log-probabilities, not logits")
    return wide


def check_targets(y: Tensor, classes: int, *, ignore_index: int = IGNORED) -> None:
    """`ValueError` naming the first target that is neither a class in 0..classes-1 nor `ignore_index`."""
    if y.is_floating_point() or y.is_complex() or y.dtype == torch.bool:
        raise ValueError(f"targets must be class indices of an integer type, not {y.dtype}")
    wide = y.long()
    bad = (((wide < 0) | (wide >= classes)) & (wide != ignore_index)).nonzero()
    if len(bad):
        index = tuple(bad[0].tolist())
        wanted = f"0..{classes - 1} or ignore_index={ignore_index}"
        raise ValueError(f"target {int(wide[index])} at index {index} is no class: wanted {wanted}")
