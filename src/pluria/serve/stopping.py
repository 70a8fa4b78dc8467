"""When an answer needs no further member: the margin of the running mean stays where it is.

    m_t = p_t[c] - max_{d != c} p_t[d]        p_t the pooled answer of the first t members, c its first choice now
    stop after member t > window  if  m_{t-window}, ..., m_t are all positive and max - min <= tolerance

So the first choice was the same over the window, and its lead over the next class hardly moved. Nothing is promised
about the members that were not run: with a tolerance of 0 only answers that stand still are cut short.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Rule:
    """The rule with its tolerance (0 to 1, in probability) and window (1 or more members); ValueError for others.

    >>> answers = torch.tensor([[[0.9, 0.1]], [[0.7, 0.3]], [[0.71, 0.29]], [[0.7, 0.3]]])
    >>> rule = Rule(0.05, window=2)
    >>> rule.stopped(answers[:3]).tolist(), rule.stopped(answers).tolist()
    ([False], [True])
    """

    tolerance: float
    window: int = 3

    def __post_init__(self) -> None:
        if not 0 <= self.tolerance <= 1:
            raise ValueError(f"a tolerance is a probability, 0 to 1; got {self.tolerance}")
        if self.window < 1:
            raise ValueError(f"a window has one member or more; got {self.window}")

    def stopped(self, probabilities: Tensor) -> Tensor:
        """Running answers `[t, n, C]`, one after each member so far -> bool `[n]`; a single class never changes."""
        count, rows, classes = probabilities.shape
        if count <= self.window:
            return torch.zeros(rows, dtype=torch.bool)
        if classes == 1:
            return torch.ones(rows, dtype=torch.bool)
        last = probabilities[-self.window - 1 :]
        choice = last[-1].argmax(-1).expand(len(last), rows)[..., None]
        lead = last.gather(-1, choice)[..., 0] - last.scatter(-1, choice, -1.0).amax(-1)
        return (lead > 0).all(0) & (lead.amax(0) - lead.amin(0) <= self.tolerance)
