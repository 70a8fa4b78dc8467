"""Pools that a few wild members cannot move: the median and the trimmed mean of the probability of each class.

    place by place as in `core.reduce`, then divided by the sum over classes

Plain outputs have `median` and `trimmed` of `core.reduce`. Source for classifiers: Kittler et al., IEEE PAMI 1998.
"""

import torch
from torch import Tensor

from pluria.core.reduce import middle, ordered, remaining
from pluria.core.weights import spread_weights


def median_probability(outputs: Tensor, weights: Tensor | None = None) -> Tensor:
    """Log of the median probability of each class, normalised, for logits or log-probabilities `[K, N, ..., C]`.

    The result is log-probabilities `[N, ..., C]`. Where the median leaves no class possible it is NaN. Refused:
    weights that are none, and outputs without a class axis.

    >>> median_probability(torch.tensor([[[0.9, 0.1]], [[0.8, 0.2]], [[0.0, 1.0]]]).log()).exp()
    tensor([[0.8000, 0.2000]])
    """
    low, high = middle(*ordered(_log_probs(outputs), spread_weights(outputs, weights)))
    return torch.logaddexp(low, high).log_softmax(-1).to(outputs.dtype)


def trimmed_probability(outputs: Tensor, weights: Tensor | None = None, *, trim: float = 0.2) -> Tensor:
    """Log of each class's trimmed mean probability, normalised, for logits or log-probabilities `[K, N, ..., C]`.

    The result is log-probabilities `[N, ..., C]`. Where trimming leaves no class possible it is NaN. Refused:
    another `trim` than in [0, 1/2), weights that are none, and outputs without a class axis.

    >>> trimmed_probability(torch.tensor([[[0.9, 0.1]], [[0.8, 0.2]], [[0.0, 1.0]]]).log(), trim=0.3334).exp()
    tensor([[0.8000, 0.2000]])
    """
    values, shares = ordered(_log_probs(outputs), spread_weights(outputs, weights))
    return (values + remaining(shares, trim).log()).logsumexp(0).log_softmax(-1).to(outputs.dtype)


def _log_probs(outputs: Tensor) -> Tensor:
    if outputs.ndim < 3:
        raise ValueError(f"logits must be [K, N, ..., C], not {list(outputs.shape)}")
    return outputs.to(torch.float64).log_softmax(-1)
