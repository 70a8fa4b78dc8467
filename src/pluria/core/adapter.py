"""Adapters: thin products that are added to weights of a network, by the weights' names.

value = base + scale left @ right        left [out, r], right [r, in]
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class LowRank:
    """A product `scale * left @ right` of `left` `[out, r]` and `right` `[r, in]`.

    >>> LowRank(torch.tensor([[1.0], [2.0]]), torch.tensor([[3.0, 4.0]]), 0.5).product()
    tensor([[1.5000, 2.0000],
            [3.0000, 4.0000]], dtype=torch.float64)
    """

    left: Tensor
    right: Tensor
    scale: float = 1.0

    def __post_init__(self) -> None:
        if self.left.ndim != 2 or self.right.ndim != 2 or self.left.shape[1] != self.right.shape[0]:
            shapes = f"{list(self.left.shape)} and {list(self.right.shape)}"
            raise ValueError(f"factors are [out, r] and [r, in] with one r; got {shapes}")

    @property
    def rank(self) -> int:
        """The number of columns of `left`."""
        return self.left.shape[1]

    def product(self) -> Tensor:
        """What is added, float64 `[out, in]`."""
        return self.scale * (self.left.detach().to(torch.float64) @ self.right.detach().to(torch.float64))


Adapter = Mapping[str, LowRank]
"""Names of weights, as in the network's state dict, to what is added to them."""
