"""How unsure a row of log-probabilities is; larger is less certain. All arithmetic is float64.

entropy           - sum_c p_c log p_c        in nats
max_probability   1 - max_c p_c
"""

import torch
from torch import Tensor


def entropy(log_probs: Tensor) -> Tensor:
    """Entropy in nats of pooled log-probabilities `[N, C]`, float64 `[N]`."""
    terms: Tensor = torch.special.entr(log_probs.to(torch.float64).exp())
    return terms.sum(-1)


def max_probability(log_probs: Tensor) -> Tensor:
    """One minus the largest probability of pooled log-probabilities `[N, C]`, float64 `[N]`; larger is less certain."""
    return -torch.expm1(log_probs.to(torch.float64).amax(-1))
