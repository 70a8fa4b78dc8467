"""Averages over the member axis: of probabilities, of logits, of independent labels.

A pool takes outputs `[K, N, ..., C]` and weights `[K]` or `[K, N]` (None: equal) and gives `[N, ..., C]` in the
outputs' dtype; the arithmetic is float64. Weights are normalised; a member of weight zero is not read.
All refuse (`ValueError`) negative or non-finite weights and weights that sum to zero. Plain outputs have `mean` of
`core.reduce`.
"""

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from pluria.core.weights import spread_weights
from pluria.pool.running import RunningMean


def mean_probability(outputs: Tensor, weights: Tensor | None = None) -> Tensor:
    """Log of the weighted mean probability: log sum_k w_k softmax(z_k), the equal-weight rule of deep ensembles.

    `outputs` are logits or log-probabilities `[K, N, ..., C]`; the result is log-probabilities `[N, ..., C]`.
    Everything stays in logs, so tiny probabilities do not underflow.
    Source: Lakshminarayanan, Pritzel and Blundell, NeurIPS 2017.

    >>> mean_probability(torch.tensor([[[0.8, 0.2]], [[0.4, 0.6]]]).log()).exp()
    tensor([[0.6000, 0.4000]])
    """
    return RunningMean("probability").add(outputs, weights).finish()


def mean_logit(outputs: Tensor, weights: Tensor | None = None) -> Tensor:
    """Normalised geometric mean of the probabilities: log_softmax( sum_k w_k log softmax(z_k) ).

    `outputs` are logits or log-probabilities `[K, N, ..., C]`; the result is log-probabilities `[N, ..., C]`.
    It is the centroid of the members under cross-entropy. Source: Wood et al., JMLR 2023.

    >>> mean_logit(torch.tensor([[[0.8, 0.2]], [[0.2, 0.8]]]).log()).exp()
    tensor([[0.5000, 0.5000]])
    """
    return RunningMean("logit").add(outputs, weights).finish()


def mean_bernoulli(outputs: Tensor, weights: Tensor | None = None) -> Tensor:
    """Logit of each label's weighted mean probability: log p / (1 - p) with p = sum_k w_k sigmoid(z_k).

    `outputs` are one logit per label, `[K, N, ..., L]` or `[K, N]`; the result is logits of the same kind,
    `[N, ..., L]` or `[N]`. Both log p and log (1 - p) are formed in logs, so a label that is nearly certain keeps
    its digits.

    >>> mean_bernoulli(torch.tensor([[0.8], [0.4]]).logit()).sigmoid()
    tensor([0.6000])
    """
    spread = spread_weights(outputs, weights)
    wide = outputs.to(torch.float64)
    pooled = mean_probability(torch.stack([logsigmoid(-wide), logsigmoid(wide)], dim=-1), spread)
    return (pooled[..., 1] - pooled[..., 0]).to(outputs.dtype)
