"""Which elements of task vectors stay when most are dropped at random.

    stays = word < p 2^32        word addressed by the key, the tensor's name, the member's position and the element

So what is dropped does not depend on pieces, threads, files or the order of tensors.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from pluria.merge.rule import Pass, Piece
from pluria.numbers.key import MERGING, Key, tensor_id
from pluria.numbers.philox import words


def stays(piece: Piece, chance: float | Tensor, key: Key) -> Tensor:
    """Bool `[K, n]`, true with probability `chance`: one for all, of each member `[K, 1]`, or of each element."""
    count, place = piece.values.shape
    stop, own = piece.start + place, tensor_id(piece.name)
    drawn = [words(key, tensor=own, group=k, stream=MERGING, start=piece.start, stop=stop) for k in range(count)]
    return torch.stack(drawn) < chance * 2.0**32


def lengths(thin: Callable[[Piece], Tensor]) -> tuple[Pass, ...]:
    """A pass whose statistics are what makes each member as long as before `thin`, `[K]`."""
    return (
        Pass(lambda piece, _: torch.stack([l1(piece.deltas), l1(thin(piece))]), lambda total, _: l1_factors(total)),
    )


def l1(deltas: Tensor) -> Tensor:
    """Sums of magnitudes of task vectors `[K, n]`, float64 `[K]`."""
    return deltas.abs().sum(1, dtype=torch.float64)


def l1_factors(total: Tensor) -> Tensor:
    """What makes each member as long as before, `[K]`, for sums of magnitudes before and after dropping, `[2, K]`."""
    before, after = total
    # A member that lost everything stays nothing.
    return torch.where(after > 0, before / after, 1.0)
