"""Where a trained pool of networks stands: are they connected, flat, alike? And so: soup, ensemble, or more training.

    mc         (L(0) + L(1)) / 2 - L(t*), t* the largest deviation on the path: below 0 a barrier, above undertrained
    CKA        |X'Y|^2 / (|X'X| |Y'Y|) of centred logits X, Y: 1 alike up to a rotation, 0 unrelated
    sharpness  largest eigenvalue of the loss's Hessian, by power iteration; its trace, by Hutchinson's estimate

No thresholds are published for the phases, so the numbers are the answer. The advice follows from the sign of mc alone,
within a tolerance that you give: average weights where networks are connected, answers where they are not.

Sources: Yang et al., "Taxonomizing Local versus Global Structure in Neural Network Loss Landscapes", NeurIPS 2021;
Schürholt et al., "A Model Zoo on Phase Transitions in Neural Networks", 2025; Kornblith et al., ICML 2019 (CKA).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from pluria.numbers.key import Key
from pluria.train.fresh import fresh_uniforms

TINY = 1e-30
Loss = Callable[[], Tensor]
"""The loss of a network on fixed data, with its gradient's path to the network's parameters."""


@dataclass(frozen=True)
class Diagnosis:
    """`connectivity` mc, `similarity` CKA, `sharpness` and `trace` of the Hessian (means over the pool), and advice."""

    connectivity: float
    similarity: float
    sharpness: float
    trace: float
    advice: str


def diagnose(
    paths: Sequence[Tensor],
    logits: Sequence[Tensor],
    curvatures: Sequence[tuple[float, float]],
    *,
    tolerance: float = 0.05,
) -> Diagnosis:
    """What the measurements of a pool say together.

    paths       losses `[T]` along learned curves (or lines) between pairs of members
    logits      each member's, `[N, C]`, on the same inputs
    curvatures  (largest eigenvalue, trace) of each member
    tolerance   how far below zero mc counts as connected, in units of the loss
    """
    if not paths or len(logits) < 2:
        raise ValueError(f"a pool has two members and a path or more; got {len(logits)} and {len(paths)}")
    mc = min(connectivity(losses) for losses in paths)
    pairs = [cka(a, b) for i, a in enumerate(logits) for b in logits[i + 1 :]]
    alike = sum(pairs) / len(pairs)
    sharp, trace = (_mean([pair[place] for pair in curvatures]) for place in (0, 1))
    return Diagnosis(mc, alike, sharp, trace, _advice(mc, alike, tolerance))


def connectivity(losses: Tensor) -> float:
    """mc of losses `[T]` along a path, its ends first and last."""
    if len(losses) < 3:
        raise ValueError("a path has a point between its ends")
    if not bool(torch.isfinite(losses).all()):
        raise ValueError(f"losses along a path are finite; got {losses.tolist()}: a member has diverged, leave it out")
    losses = losses.detach()
    middle = (losses[0] + losses[-1]) / 2
    return float(middle - losses[(middle - losses).abs().argmax()])


def cka(x: Tensor, y: Tensor) -> float:
    """Linear CKA of `[N, C]` and `[N, D]`, rows of the same inputs, in float64."""
    x, y = (each.detach().to(torch.float64) - each.detach().to(torch.float64).mean(0) for each in (x, y))
    return float((x.T @ y).square().sum() / ((x.T @ x).norm() * (y.T @ y).norm()))


def sharpness(
    model: nn.Module, loss: Loss, *, steps: int = 50, probes: int = 20, key: Key | int = 0
) -> tuple[float, float]:
    """The largest eigenvalue of the Hessian of `loss()` by `model`'s parameters, and an estimate of its trace."""
    key = key if isinstance(key, Key) else Key(key)
    params = [value for value in model.parameters() if value.requires_grad]
    grads = torch.autograd.grad(loss(), params, create_graph=True)
    flat = torch.cat([grad.reshape(-1) for grad in grads])

    def product(vector: Tensor) -> Tensor:
        found = torch.autograd.grad(flat, params, vector, retain_graph=True, materialize_grads=True)
        return torch.cat([each.reshape(-1) for each in found])

    def drawn(name: str, group: int = 0) -> Tensor:
        return fresh_uniforms(name, (len(flat),), key, group=group).to(flat.detach()) - 0.5

    vector = drawn("\0power")
    for _ in range(steps):
        vector = product(vector / vector.norm().clamp(min=TINY))
    unit = vector / vector.norm().clamp(min=TINY)
    signs = [torch.where(drawn("\0signs", probe) < 0, -1.0, 1.0).to(unit) for probe in range(probes)]
    return float(unit @ product(unit)), _mean([float(sign @ product(sign)) for sign in signs])


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else float("nan")


def _advice(mc: float, alike: float, tolerance: float) -> str:
    if mc < -tolerance:
        return f"a barrier ({mc:.3g}) lies between members: average their answers, or align them before their weights"
    if mc > tolerance:
        return f"a path lies {mc:.3g} below its ends: members are undertrained; train on, then average weights"
    more = "adds little" if alike > 0.95 else "may add more"
    return f"members are connected ({mc:.3g}): averaging weights is safe; at CKA {alike:.2f} averaging answers {more}"
