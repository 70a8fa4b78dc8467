"""How far one prediction is from another, without labels.

KL(p || q)(x) = sum_c p(c | x) log(p(c | x) / q(c | x)),  in nats per example
"""

from __future__ import annotations

import torch
from torch import Tensor

from pluria.score.rows import checked_log_probs


def kl(log_p: Tensor, log_q: Tensor) -> Tensor:
    """KL(p || q) `[N]` of log-probabilities `[N, C]`; classes with p = 0 count nothing.

    Raises ValueError for other shapes, and for rows that are no log-probabilities.

    >>> kl(torch.tensor([[0.5, 0.5]]).log(), torch.tensor([[0.25, 0.75]]).log())
    tensor([0.1438], dtype=torch.float64)
    """
    if log_p.shape != log_q.shape:
        raise ValueError(f"both need the same shape; got {list(log_p.shape)} and {list(log_q.shape)}")
    p, q = (checked_log_probs(rows).to(torch.float64) for rows in (log_p, log_q))
    return torch.where(p > -torch.inf, p.exp() * (p - q), 0.0).sum(-1)
