"""Which token comes next: the most probable one, or one drawn from the pooled distribution, narrowed or not.

    greedy     argmax_v log p(v)
    drawn      q = softmax(log p / T), then only the k most probable, then the fewest whose sum is top_p or more;
               the token is the first v with q(0) + ... + q(v) > u, u uniform

The order is that of transformers, whose own filters are used. Source: Holtzman et al., ICLR 2020 (top-p).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from pluria.store.pretrained import hugging_face


@dataclass(frozen=True)
class Sampling:
    """How tokens are chosen; temperature 0 is greedy.

    Raises ValueError for a temperature below zero or not finite, a top_k below 1, a top_p outside (0, 1], and for
    either of the two where nothing is drawn.
    """

    temperature: float = 0.0
    top_k: int | None = None
    top_p: float | None = None

    def __post_init__(self) -> None:
        if not (math.isfinite(self.temperature) and self.temperature >= 0):
            raise ValueError(f"a temperature is 0, which is greedy, or positive and finite; got {self.temperature}")
        if self.top_k is not None and (isinstance(self.top_k, bool) or self.top_k != int(self.top_k) or self.top_k < 1):
            raise ValueError(f"top_k is a whole number from 1; got {self.top_k}")
        if self.top_p is not None and not 0 < self.top_p <= 1:
            raise ValueError(f"top_p is a probability above 0 and up to 1; got {self.top_p}")
        if self.temperature == 0 and not self.top_k is self.top_p is None:
            raise ValueError("top_k and top_p narrow what is drawn: give a temperature above 0 with them, such as 1.0")

    def narrowed(self, log_probs: Tensor) -> Tensor:
        """Log-probabilities `[V]` after temperature, top-k and top-p; -inf where a token cannot be drawn."""
        library, scores = hugging_face(), log_probs[None] / self.temperature
        if self.top_k is not None:
            scores = library.TopKLogitsWarper(int(self.top_k))(None, scores)
        if self.top_p is not None and self.top_p < 1:
            scores = library.TopPLogitsWarper(float(self.top_p))(None, scores)
        return torch.as_tensor(scores)[0].log_softmax(-1)

    def choose(self, log_probs: Tensor, generator: torch.Generator) -> int:
        """The next token, of log-probabilities `[V]` on the CPU; one number of the generator where it is drawn."""
        if self.temperature == 0:
            return int(log_probs.argmax())
        sums = self.narrowed(log_probs.double()).exp().cumsum(0)
        # Scaled by the last sum, so that rounding leaves no gap above it; the first token of the gap is possible.
        u = torch.rand(1, dtype=torch.float64, generator=generator) * sums[-1]
        return min(int(torch.searchsorted(sums, u, right=True)), int(torch.searchsorted(sums, sums[-1])))
