"""Joint log score: how well members predict several labels at once, in nats for each label.

    joint          J = -(1/tau) log sum_m w_m prod_t p_m(y_t | x_t)          t = 1..tau points of one draw
    marginal       M = -(1/tau) sum_t log sum_m w_m p_m(y_t | x_t)           the NLL of the pooled prediction
    all_epistemic  E = -(1/tau) sum over the distinct x of log sum_m w_m p_m(y | x)

Where the same members are right on several inputs, J < M. No temperature does that: a single model has J = M.
Where members take turns in being right, J > M: one member must answer for all points, the mean need not.
But a repeated example repeats its one label, and that alone rewards calling all uncertainty epistemic: E is what a
single model gets for drawing one label for each distinct input and repeating it. So a J counts only where it beats the
E of the plain network on the same points. With all points different E = M, and a J below it comes from the members.

All take members' logits or log-probabilities `[K, N, C]`, targets `[N]` and R draws of points (see `draw_points`), and
give float64 `[R]`. Weights are `[K]`: the labels of a draw come from one member, so no weight depends on the example.
Sources: Osband et al., The Neural Testbed, NeurIPS 2022; Osband et al., UAI 2022.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from pluria.core.weights import checked_weights
from pluria.score.points import Points
from pluria.score.rows import IGNORED, check_targets

# Log-probabilities gathered at once: 32 MiB of them, whatever the members and the draws are.
_GATHERED_AT_ONCE = 1 << 22


def joint(
    outputs: Tensor, y: Tensor, points: Points, *, weights: Tensor | None = None, temperature: float = 1.0
) -> Tensor:
    """J of every draw, infinite where no member allows all its labels.

    `temperature` divides every member's logits before its softmax. Fit it for the marginal of members tempered in this
    way: tempering the pooled prediction has no joint form, since pooling has already forgotten the members.
    Read J next to `marginal` and the plain network's `all_epistemic`; compare two methods by `paired_bootstrap`.
    Refused: `TypeError` for outputs that are not floating point; `ValueError` for other shapes, no member, NaN, targets
    that are no class or ignored, points beyond the rows, weights that are negative or sum to 0, temperatures <= 0.

    >>> members = torch.tensor([[[0.9, 0.1]], [[0.1, 0.9]]], dtype=torch.float64).log()
    >>> y, twice = torch.tensor([0]), Points(torch.tensor([[0]]), torch.tensor([[2]]))
    >>> joint(members, y, twice), marginal(members, y, twice)  # -log(0.41) / 2 and -log(0.5)
    (tensor([0.4458], dtype=torch.float64), tensor([0.6931], dtype=torch.float64))
    """
    members = _weighted(outputs, y, points, weights, temperature)
    at_once = max(1, _GATHERED_AT_ONCE // (len(members.chosen) * points.examples.shape[1]))
    blocks = []
    for start in range(0, len(points.examples), at_once):
        part = slice(start, start + at_once)
        summed = _summed(members.chosen, points.examples[part], points.times[part])
        blocks.append((summed + members.log_weights[:, None]).logsumexp(0))
    return -torch.cat(blocks) / points.tau


def marginal(
    outputs: Tensor, y: Tensor, points: Points, *, weights: Tensor | None = None, temperature: float = 1.0
) -> Tensor:
    """M of every draw: the mean NLL of the pooled prediction over its points. Arguments and errors as in `joint`."""
    pooled = _weighted(outputs, y, points, weights, temperature).pooled
    return -_summed(pooled, points.examples, points.times) / points.tau


def all_epistemic(
    outputs: Tensor, y: Tensor, points: Points, *, weights: Tensor | None = None, temperature: float = 1.0
) -> Tensor:
    """E of every draw, the control for `joint`: the pooled NLL with each distinct example counted once, over tau.

    Give it the plain network `[1, N, C]` with its own temperature. Arguments and errors as in `joint`.

    >>> network, twice = torch.tensor([[[0.5, 0.5]]]).log(), Points(torch.tensor([[0]]), torch.tensor([[2]]))
    >>> all_epistemic(network, torch.tensor([0]), twice)  # -log(0.5) / 2
    tensor([0.3466], dtype=torch.float64)
    """
    pooled = _weighted(outputs, y, points, weights, temperature).pooled
    return -_summed(pooled, points.examples, points.times.clamp(max=1)) / points.tau


@dataclass(frozen=True, eq=False)
class _Weighted:
    """Log-probabilities of the targets `[K, N]` under members of log weights `[K]`, float64; weights sum to 1."""

    chosen: Tensor
    log_weights: Tensor

    @property
    def pooled(self) -> Tensor:
        return (self.chosen + self.log_weights[:, None]).logsumexp(0)


def _summed(log_probs: Tensor, examples: Tensor, times: Tensor) -> Tensor:
    """sum_a times_a log p(example a): `[..., N]` -> `[..., R]`. What counts 0 times is not read: 0 * -inf is NaN."""
    counts = times.to(log_probs.device)
    picked = log_probs[..., examples.to(log_probs.device)]
    return torch.where(counts > 0, picked * counts, 0.0).sum(-1)


def _weighted(outputs: Tensor, y: Tensor, points: Points, weights: Tensor | None, temperature: float) -> _Weighted:
    _check(outputs, y, points, temperature)
    shares = checked_weights(torch.ones(len(outputs)) if weights is None else weights).to(outputs.device)
    if shares.shape != outputs.shape[:1] or not bool(shares.sum() > 0):
        given = f"{list(shares.shape)} of sum {float(shares.sum()):g}"
        raise ValueError(f"weights must be [{len(outputs)}], one for each member, with a positive sum, not {given}")
    read = shares.nonzero()[:, 0]
    # Member by member, so that of all classes only one member's float64 copy is held.
    chosen = torch.stack([_log_probs(outputs[k], y, temperature) for k in read.tolist()])
    bad = chosen.isnan().nonzero()
    if len(bad):
        where = f"member {int(read[bad[0, 0]])} holds NaN or +inf at example {int(bad[0, 1])}"
        raise ValueError(f"{where}; give the member weight zero")
    return _Weighted(chosen, (shares[read] / shares.sum()).log())


def _log_probs(logits: Tensor, y: Tensor, temperature: float) -> Tensor:
    scaled = (logits.to(torch.float64) / temperature).log_softmax(-1)
    return scaled.gather(-1, y.long()[:, None])[:, 0]


def _check(outputs: Tensor, y: Tensor, points: Points, temperature: float) -> None:
    if not outputs.is_floating_point():
        raise TypeError(f"outputs must be floating point, not {outputs.dtype}; convert them first")
    if outputs.ndim != 3 or outputs.shape[1:2] != y.shape or len(outputs) == 0:
        given = f"{list(outputs.shape)} and {list(y.shape)}"
        raise ValueError(f"outputs [K, N, C] with at least one member and y [N] do not fit: {given}; see flatten")
    check_targets(y, outputs.shape[-1])
    if bool((y.long() == IGNORED).any()):  # in uint8, -100 would be class 156
        raise ValueError("drop ignored targets and their rows first, with flatten")
    if int(points.examples.max()) >= len(y):
        raise ValueError(f"the points reach example {int(points.examples.max())}, but there are {len(y)} rows")
    if not (math.isfinite(temperature) and temperature > 0):
        raise ValueError(f"a temperature must be positive and finite, not {temperature}")
