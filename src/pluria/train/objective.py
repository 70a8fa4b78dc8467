"""Losses of members that are trained together, or of one network that learns from many.

    diversity   (1 - g) mean_k NLL_k + g NLL(mean_k p_k) = mean_k NLL_k - g J      J >= 0 the gap of Jensen
    EnsLoss     sum_i d_i z_i / B, margins z_i, derivatives d_i < 0 of a random convex calibrated loss, drawn anew
    distil      T^2 KL(p_T || q_T)      p_T the mean of the members' probabilities at temperature T

g = 0 trains members apart, g = 1 their mixture, g < 0 punishes diversity. Above 1 the loss has no lower bound. Large
networks gain nothing from g > 0; report the gap, do not chase it.

Sources: Abe et al., "Pathologies of Predictive Diversity in Deep Ensembles", TMLR 2024; Dai, "EnsLoss: Stochastic
Calibrated Loss Ensembles for Preventing Overfitting in Classification", ICML 2025; Hinton, Vinyals and Dean, 2015.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from pluria.numbers.key import Key
from pluria.train.fresh import fresh_normals


@dataclass(frozen=True)
class Decomposition:
    """Mean member NLL, NLL of the mean probability, and the gap between them, each one number with its gradient."""

    members: Tensor
    ensemble: Tensor

    @property
    def gap(self) -> Tensor:
        """What members gain by being averaged: never negative."""
        return self.members - self.ensemble


def decompose(outputs: Tensor, targets: Tensor) -> Decomposition:
    """The decomposition of logits `[K, N, C]` on targets `[N]`."""
    log_probs = outputs.log_softmax(-1).gather(-1, targets.expand(len(outputs), -1).unsqueeze(-1)).squeeze(-1)
    return Decomposition(-log_probs.mean(), -(log_probs.logsumexp(0) - math.log(len(outputs))).mean())


def diversity_loss(outputs: Tensor, targets: Tensor, *, gamma: float = 0.0) -> Tensor:
    """The loss of logits `[K, N, C]` on targets `[N]`. Raises ValueError for gamma > 1."""
    if not gamma <= 1:
        raise ValueError(
            f"gamma is at most 1, the mixture's own likelihood; got {gamma}: above it members gain without end by "
            "being apart, and the loss has no lower bound"
        )
    found = decompose(outputs, targets)
    return (1 - gamma) * found.members + gamma * found.ensemble


def ens_loss(logits: Tensor, targets: Tensor, *, key: Key | int = 0, step: int = 0) -> Tensor:
    """The loss of logits `[N]` on targets 0 and 1, or `[N, C]` on classes `[N]`; give the number of the step.

    With classes the margins are those of one against the rest, f_y and -f_j; the source is of two classes. The value
    means nothing, its gradient is that of the random loss: watch another figure. Raises ValueError for other shapes.
    """
    if logits.ndim not in (1, 2) or logits.shape[1:] == (1,) or targets.shape != logits.shape[:1]:
        raise ValueError(
            "logits are [N] on targets of two classes, or [N, C] of two classes or more; got "
            f"{tuple(logits.shape)} on targets {tuple(targets.shape)}. Take the one column of a binary network out"
        )
    key = key if isinstance(key, Key) else Key(key)
    if logits.ndim == 1:
        margins = torch.where(targets > 0, logits, -logits)
    else:
        margins = torch.where(F.one_hot(targets, logits.shape[1]).bool(), logits, -logits)
    slopes = loss_slopes(margins.detach().flatten(), key=key, step=step)
    return (slopes * margins.flatten()).sum() / len(logits)


def loss_slopes(margins: Tensor, *, key: Key, step: int = 0) -> Tensor:
    """Derivatives at margins `[M]` of one random loss: in [-1, 0), never decreasing, dying as 1 / z beyond 1."""
    drawn = torch.exp(fresh_normals("\0slopes", tuple(margins.shape), key, group=step)).to(margins).clamp(max=1.0)
    slopes = torch.empty_like(margins)
    slopes[margins.argsort(stable=True)] = -drawn.sort(descending=True).values
    slopes = torch.where(margins > 1, slopes / margins, slopes)
    # The floor keeps the slope away from zero; clipped after it, so that no slope is steeper than -1.
    return (slopes - 1e-6).clamp(min=-1.0)


def distillation_loss(student: Tensor, teachers: Tensor, *, temperature: float = 1.0) -> Tensor:
    """The loss of a student's logits `[N, C]` on those of the members, `[K, N, C]`, which are held."""
    if not 0 < temperature < math.inf:
        raise ValueError(f"a temperature is positive and finite; got {temperature}")
    mean = (teachers.detach() / temperature).log_softmax(-1).logsumexp(0) - math.log(len(teachers))
    own = (student / temperature).log_softmax(-1)
    return temperature**2 * F.kl_div(own, mean, reduction="batchmean", log_target=True)
