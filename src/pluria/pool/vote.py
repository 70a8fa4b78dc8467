"""Vote: each member names its first choice; the answer is the share of the weight that each class gets.

    p(c) = sum_k w_k [c in T_k] / |T_k|  /  sum_k w_k        T_k = the classes of member k's largest output

A member with several largest outputs splits its vote among them evenly. Where classes end level, all keep their shares;
`argmax` of the result then takes the lowest class, so a decision depends on nothing but the outputs and the classes'
order. Hard labels vote as `one_hot(labels).float()`.
"""

import torch
from torch import Tensor

from pluria.core.weights import spread_weights


def vote(outputs: Tensor, weights: Tensor | None = None) -> Tensor:
    """Log of each class's share of the votes `[N, ..., C]`, for outputs `[K, N, ..., C]`; weights `[K]` or `[K, N]`.

    The logarithm of no vote is -inf, so a vote has an error and no finite NLL. A member of weight zero is not read; NaN
    of any other gives NaN. Refused (`ValueError`): outputs without a class axis, negative or non-finite weights,
    weights that sum to zero for an example.

    >>> vote(torch.tensor([[[0.9, 0.1]], [[0.4, 0.6]], [[0.4, 0.6]]]).log()).exp()
    tensor([[0.3333, 0.6667]])
    """
    spread = spread_weights(outputs, weights)
    if outputs.ndim < 3:
        raise ValueError(f"outputs must be [K, N, ..., C], not {list(outputs.shape)}")
    total = spread.sum(0)
    if not bool((total > 0).all()):
        raise ValueError("the members' weights must have a positive sum for every example")
    wide = spread.reshape(*spread.shape, *[1] * (outputs.ndim - 2))
    first = (outputs == outputs.amax(-1, keepdim=True)).to(torch.float64)
    # NaN equals nothing: its member names no class, and 0 / 0 says so.
    shares = torch.where(wide > 0, wide * first / first.sum(-1, keepdim=True), 0.0).sum(0)
    return (shares / total.reshape(-1, *[1] * (outputs.ndim - 2))).log().to(outputs.dtype)
