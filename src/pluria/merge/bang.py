"""BANG: where one member's logits are larger than the other's, it decides alone; scales are compared and matched.

    s_k = root mean square of the logits of member k, each example's mean taken off
    merged = sum_k w_k theta_k,  but sum_k w_k (s / s_k) theta_k  for the tensors of the last layer,  s = sum_k w_k s_k

Averages win by examples that both members get wrong for different reasons, and an over-confident member takes that
away. The source fine-tunes it with label smoothing or mixup, so that scales come out alike; here the last layer is
scaled afterwards, which needs no training. Source: Lin et al., "Spurious feature diversification improves
out-of-distribution generalization", ICLR 2024.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from pluria.core.reduce import weighted_sum
from pluria.merge.linear import linear
from pluria.merge.rule import Piece, Rule


def bang(scales: Tensor, head: Sequence[str]) -> Callable[[str], Rule]:
    """Rules of the mean with matched scales: `scales` `[K]` of `logit_scales`, `head` names of the last layer.

    Where these are linear in the outputs, every member has the same scale afterwards. Raises ValueError for scales that
    are not positive.
    """
    wide = scales.detach().to(torch.float64)
    if wide.ndim != 1 or not bool(((wide > 0) & wide.isfinite()).all()):
        raise ValueError(f"scales are positive, one for each member; got {wide.tolist()}")

    def matched(piece: Piece, _: object) -> Tensor:
        return weighted_sum(piece.values, piece.weights * float(piece.weights @ wide) / wide)

    return lambda name: Rule(matched, members=len(wide)) if name in head else linear()


def logit_scales(outputs: Tensor) -> Tensor:
    """s_k `[K]`, float64, of logits `[K, N, ..., C]`. Scales that differ by a factor of two are worth matching.

    >>> logit_scales(torch.tensor([[[1.0, -1.0]], [[7.0, -3.0]]]))
    tensor([1., 5.], dtype=torch.float64)
    """
    wide = outputs.to(torch.float64)
    return (wide - wide.mean(-1, keepdim=True)).square().flatten(1).mean(1).sqrt()


def contingency(outputs: Tensor, merged: Tensor, y: Tensor) -> Tensor:
    """How many examples are right in each way, int64 `[2, 2, 2]`: (first member, second member, merged), 1 for right.

    `outputs` are logits `[2, N, C]`, `merged` `[N, C]`, `y` `[N]`. `[0, 0, 1]` counts what only the average gets right.

    >>> right, wrong = [2.0, 0.0, 1.0], [0.0, 2.0, 1.0]
    >>> table = contingency(torch.tensor([[right], [wrong]]), torch.tensor([right]), torch.tensor([0]))
    >>> table.nonzero().tolist()
    [[1, 0, 1]]
    """
    if len(outputs) != 2 or merged.shape != outputs.shape[1:]:
        shapes = f"{list(outputs.shape)} and {list(merged.shape)}"
        raise ValueError(f"outputs [2, N, C] and merged [N, C] are wanted; got {shapes}")
    first, second, both = ((logits.argmax(-1) == y).long() for logits in (*outputs, merged))
    return torch.bincount(4 * first + 2 * second + both, minlength=8).view(2, 2, 2)
