"""Weights without labels, made for prompts of zero-shot classifiers: who is sure beyond its habits counts more.

    L'_k[n, c] = L_k[n, c] - 1/2 ( mean over background rows of L_k[., c]  +  mean over own rows of L_k[., c] )
    s_k = mean_n max_c L'_k[n, c]        w = softmax(s),   or equal over  (s_k - median s) / MAD > select

The plain score mean_n max_c L favours members that are loud about frequent classes; taking off each member's mean logit
for each class removes that. Source: Allingham et al., "A simple zero-shot prompt weighting technique to improve prompt
ensembling in text-image models" (ZPE), ICML 2023.
"""

import math

import torch
from torch import Tensor


def zpe(logits: Tensor, background: Tensor, *, select: float | None = None) -> Tensor:
    """Mixing weights `[K]`, float64 and of sum one, from unlabelled `logits` `[K, N, C]`.

    background   logits [K, M, C] of the same members on inputs of no particular kind
    select       how many MADs above the median score a member must lie (0.5 is usual); those get equal weights, and
                 where none does the best one alone is taken; None: softmax of the scores

    The size of the logits matters: the softmax is at their scale. Use rows that give no figure afterwards. The weights
    fit `Ensemble.reweight` and every pool. Raises TypeError for logits that are not floating point, ValueError for
    shapes that do not fit, no rows, and logits that are not finite.
    """
    _check(logits, background)
    own, usual = logits.detach().to(torch.float64), background.detach().to(torch.float64)
    habit = (usual.mean(1, keepdim=True) + own.mean(1, keepdim=True)) / 2
    scores = (own - habit).amax(-1).mean(1)
    if select is None:
        return scores.softmax(0)
    if not math.isfinite(select):
        raise ValueError(f"select must be a finite number of MADs, not {select}")
    centre = scores.quantile(0.5)
    chosen = scores - centre > select * (scores - centre).abs().quantile(0.5)
    if not bool(chosen.any()):
        chosen = scores == scores.max()
    return chosen.to(torch.float64) / chosen.sum()


def _check(logits: Tensor, background: Tensor) -> None:
    for name, rows in (("logits", logits), ("background", background)):
        if not rows.is_floating_point():
            raise TypeError(f"{name} must be floating point, not {rows.dtype}; convert them first")
        if rows.ndim != 3 or 0 in rows.shape:
            raise ValueError(f"{name} must be [K, rows, C] with members, rows and classes, not {list(rows.shape)}")
        if not bool(torch.isfinite(rows).all()):
            raise ValueError(f"{name} hold NaN or an infinite value")
    if logits.shape[::2] != background.shape[::2]:
        shapes = f"{list(logits.shape)} and {list(background.shape)}"
        raise ValueError(f"logits and background need the same members and classes; got {shapes}")
