"""Bias, variance and diversity of an ensemble method over repeated trainings, exact for every row.

    expected loss of the ensemble  =  bias + variance - diversity

D trainings give K members each. q° is the centroid of a member over the trainings, q the centroid of the members of one
training: the arithmetic mean for squared loss, the normalised geometric mean (`mean_logit`) for the NLL.

    bias        mean_k  loss(y, q°_k)                               diversity   mean_dk  B(q_d, q_dk)
    variance    mean_dk B(q°_k, q_dk)                               B           squared distance, or KL(first || second)

Noise of the labels is part of the bias. With one training the variance is 0, the bias is the members' mean loss, and
the diversity is their variance or `ambiguity`. The mean of probabilities is no centroid under the NLL: its gain depends
on the labels. Member k must be the same kind of member in every training; where members are drawn alike, any order is.
Source: Wood et al., JMLR 2023.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from pluria.core.weights import checked_weights
from pluria.score.rows import IGNORED, check_targets


@dataclass(frozen=True, eq=False)
class BiasVariance:
    """The parts for each row, float64 `[N]`. The expected loss of the ensemble is bias + variance - diversity."""

    bias: Tensor
    variance: Tensor
    diversity: Tensor

    @property
    def loss(self) -> Tensor:
        """Expected loss of the centroid of the members, `[N]`."""
        return self.bias + self.variance - self.diversity

    @property
    def member_loss(self) -> Tensor:
        """Expected loss of a member, `[N]`: diversity bought with a larger one is no gain."""
        return self.bias + self.variance


def bias_variance_nll(outputs: Tensor, y: Tensor, *, weights: Tensor | None = None) -> BiasVariance:
    """Parts of the NLL, in nats, of logits or log-probabilities `[D, K, N, C]` at classes `[N]`; member weights `[K]`.

    Infinite where members hold each other's classes impossible. Refused: `TypeError` for outputs that are not floating
    point; `ValueError` for other shapes, no training, no member, NaN, targets that are no class or ignored, and weights
    that are negative or sum to zero.

    >>> members = torch.tensor([[[[0.8, 0.2]], [[0.2, 0.8]]]], dtype=torch.float64).log()
    >>> parts = bias_variance_nll(members, torch.tensor([0]))
    >>> [round(part.item(), 4) for part in (parts.bias, parts.variance, parts.diversity, parts.loss)]
    [0.9163, 0.0, 0.2231, 0.6931]
    """
    rows, shares = _checked(outputs, (len(y), *outputs.shape[-1:]), weights)
    check_targets(y, rows.shape[-1])
    if bool((y.long() == IGNORED).any()):  # in uint8, -100 would be class 156
        raise ValueError("drop ignored targets and their rows first, with flatten")
    log_probs = rows.log_softmax(-1)
    over_trainings, over_members = log_probs.mean(0), torch.einsum("k,dknc->dnc", shares, log_probs)
    place = y.long()[:, None].expand(len(shares), -1, -1)
    bias = -over_trainings.log_softmax(-1).gather(-1, place)[..., 0]
    # KL(centroid || member), in the mean over those it is the centroid of, is minus the log of its normaliser.
    return BiasVariance(shares @ bias, shares @ -over_trainings.logsumexp(-1), -over_members.logsumexp(-1).mean(0))


def bias_variance_squared(outputs: Tensor, y: Tensor, *, weights: Tensor | None = None) -> BiasVariance:
    """Parts of the squared error of outputs `[D, K, N]` or `[D, K, N, P]` at y `[N]` or `[N, P]`, the mean over P.

    Of probabilities and one-hot targets, times C, they are those of the Brier score. Refused: what `bias_variance_nll`
    refuses, and targets that are not floating point.

    >>> parts = bias_variance_squared(torch.tensor([[[0.0], [2.0]], [[2.0], [4.0]]]), torch.tensor([1.0]))
    >>> parts.bias, parts.variance, parts.diversity
    (tensor([2.], dtype=torch.float64), tensor([1.], dtype=torch.float64), tensor([1.], dtype=torch.float64))
    """
    if not y.is_floating_point():
        raise TypeError(f"regression targets must be floating point, not {y.dtype}; convert them first")
    rows, shares = _checked(outputs, tuple(y.shape), weights)
    flat = rows.flatten(3) if rows.ndim > 3 else rows[..., None]
    over_trainings, over_members = flat.mean(0), torch.einsum("k,dknp->dnp", shares, flat)
    truth = y.to(torch.float64).reshape(len(y), -1)
    return BiasVariance(
        shares @ (over_trainings - truth).square().mean(-1),
        shares @ (flat - over_trainings).square().mean((0, -1)),
        torch.einsum("k,dkn->n", shares, (flat - over_members[:, None]).square().mean(-1)) / len(flat),
    )


def _checked(outputs: Tensor, wanted: tuple[int, ...], weights: Tensor | None) -> tuple[Tensor, Tensor]:
    """Outputs `[D, K, *wanted]` in float64 and the shares `[K]`, of the members of positive weight."""
    if not outputs.is_floating_point():
        raise TypeError(f"outputs must be floating point, not {outputs.dtype}; convert them first")
    if tuple(outputs.shape[2:]) != wanted or 0 in outputs.shape[:2]:
        raise ValueError(f"outputs must be [D, K, {', '.join(map(str, wanted))}] for this y, not {list(outputs.shape)}")
    shares = checked_weights(torch.ones(outputs.shape[1]) if weights is None else weights).to(outputs.device)
    if shares.shape != outputs.shape[1:2] or not bool(shares.sum() > 0):
        raise ValueError(f"weights must be [{outputs.shape[1]}] with a positive sum, not {list(shares.shape)}")
    rows = outputs[:, shares > 0].to(torch.float64)
    if bool(rows.isnan().any()):
        raise ValueError("the outputs hold NaN; give the member weight zero")
    return rows, shares[shares > 0] / shares.sum()
