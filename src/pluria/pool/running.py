"""Running averages over members: blocks of members are added, shards are merged, memory does not grow with K.

    probability   log sum_k w_k softmax(z_k)  -  log sum_k w_k
    logit         log_softmax( sum_k w_k log_softmax(z_k) / sum_k w_k )
    output        sum_k w_k z_k / sum_k w_k

Outputs come as `[k, N, ..., C]` with weights `[k]` or `[k, N]`; the state is float64 `[N, ..., C]`.
"""

from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from pluria.core.reduce import positive_total, weighted_sum
from pluria.core.weights import spread_weights

Rule = Literal["probability", "logit", "output"]


@dataclass(frozen=True, eq=False)
class RunningMean:
    """The average of the members seen so far; `add` and `merge` return a new value and leave this one as it is.

    A member of weight zero is not read, so it may hold anything. Weights need no normalisation.

    >>> z = torch.tensor([[[2.0, 0.0]], [[0.0, 2.0]]])
    >>> mean = RunningMean("probability").add(z[:1]).add(z[1:])
    >>> mean.finish().exp()
    tensor([[0.5000, 0.5000]])
    """

    rule: Rule
    state: Tensor | None = None
    total: Tensor | None = None
    dtype: torch.dtype = torch.float64

    def __post_init__(self) -> None:
        if self.rule not in ("probability", "logit", "output"):
            raise ValueError(f"the rule must be 'probability', 'logit' or 'output', not {self.rule!r}")

    def add(self, outputs: Tensor, weights: Tensor | None = None) -> "RunningMean":
        """Add a block of members: outputs `[k, N, ..., C]`, weights `[k]`, `[k, N]` or None for ones."""
        spread = spread_weights(outputs, weights)
        if self.rule != "output" and outputs.ndim < 3:
            raise ValueError(f"logits must be [K, N, ..., C], not {list(outputs.shape)}")
        state = self._sum(outputs.to(torch.float64), spread)
        block = replace(self, state=state, total=spread.sum(0), dtype=outputs.dtype)
        return block if self.state is None else self.merge(block)

    def merge(self, other: "RunningMean") -> "RunningMean":
        """The average over the members of both; either may be empty. Refused: another rule, shape or dtype."""
        if self.rule != other.rule:
            raise ValueError(f"cannot merge a mean of {self.rule}s with a mean of {other.rule}s")
        if self.state is None or self.total is None:
            return other
        if other.state is None or other.total is None:
            return self
        if self.state.shape != other.state.shape or self.dtype != other.dtype:
            mine, theirs = (f"{list(s.shape)} {d}" for s, d in ((self.state, self.dtype), (other.state, other.dtype)))
            raise ValueError(f"cannot merge members' outputs of {mine} with outputs of {theirs}")
        join = torch.logaddexp if self.rule == "probability" else torch.add
        return replace(self, state=join(self.state, other.state), total=self.total + other.total)

    def finish(self) -> Tensor:
        """The pooled output `[N, ..., C]` in the outputs' dtype: log-probabilities, for "output" plain outputs.

        `ValueError` if no member was added or if all weights of an example are zero. A class that some member of
        positive weight holds impossible (logit -inf) is impossible in the mean of logits; where that leaves no class
        the result is NaN.
        """
        if self.state is None or self.total is None:
            raise ValueError("no member was added")
        total = positive_total(self.total).reshape(-1, *[1] * (self.state.ndim - 1))
        if self.rule == "probability":
            return (self.state - total.log()).to(self.dtype)
        mean = self.state / total
        return (mean.log_softmax(-1) if self.rule == "logit" else mean).to(self.dtype)

    def _sum(self, outputs: Tensor, spread: Tensor) -> Tensor:
        lifted = outputs if self.rule == "output" else outputs.log_softmax(-1)
        if self.rule == "probability":
            wide = spread.reshape(*spread.shape, *[1] * (outputs.ndim - 2))
            return torch.where(wide > 0, lifted + wide.log(), -torch.inf).logsumexp(0)
        return weighted_sum(lifted, spread)
