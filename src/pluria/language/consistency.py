"""Consistency weights (CoRE): members count by how near they are to the others, token by token and as a whole.

    p* = sum_k w_k p_k        d_k(v) = |p_k(v) - p*(v)|        f falls from f(0) = 1 to f(1) = 0
    token level   g_k(v) = f(d_k(v)) / mean over S_k of f(d_k)  on S_k, and 1 outside
    model level   u_k = w_k sum over S_k of f(d_k(v)) / H(p_k),  H the entropy
    pooled        P(v) = sum_k u_k g_k(v) p_k(v) / sum over all v of the same

S_k are the tokens that member k, or the mean, holds possible; with `top`, those among the `top` most probable of one.
Over many words nearly every d is zero, so without `top` the sum of f is nearly the same for every member, and the model
level is one over the entropy. Filters:

    rbf         (exp(-2 d) - exp(-2)) / (1 - exp(-2))      linear   1 - d        power   (1 - d)^5
    reciprocal  2 / (1 + d) - 1                            sigmoid  1 / (1 + exp(5 (d - 1/2))), rescaled likewise

The source anchors: one main model is not filtered and never counts less than the others together. Here the anchor is
off unless it is asked for. Source: Zeng et al., CoRE, Findings of EACL 2026; its pooled scores are not normalised.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Literal

import torch
from torch import Tensor

from pluria.core.weights import spread_weights

Filter = Literal["rbf", "linear", "power", "reciprocal", "sigmoid"]

LEAST_ENTROPY = 1e-6
"""Nats: a member that is certain would otherwise count without bound."""


def _sigmoid(far: Tensor) -> Tensor:
    low, high = 1 / (1 + math.exp(2.5)), 1 / (1 + math.exp(-2.5))
    return (torch.sigmoid(-5 * (far - 0.5)) - low) / (high - low)


FILTERS: Mapping[Filter, Callable[[Tensor], Tensor]] = {
    "rbf": lambda far: (torch.exp(-2 * far) - math.exp(-2)) / (1 - math.exp(-2)),
    "linear": lambda far: 1 - far,
    "power": lambda far: (1 - far) ** 5,
    "reciprocal": lambda far: 2 / (1 + far) - 1,
    "sigmoid": _sigmoid,
}


def consistency(
    outputs: Tensor,
    weights: Tensor | None = None,
    *,
    tokens: Filter | None = "rbf",
    models: bool = True,
    anchor: int | None = None,
    top: int | None = None,
) -> Tensor:
    """Log-probabilities `[N, ..., V]` pooled with consistency weights, from members' outputs `[K, N, ..., V]`.

    outputs   logits or log-probabilities
    weights   `[K]` or `[K, N]`, equal by default; they enter the mean p* and the members' weights, and are normalised
    tokens    the filter of the token level; None switches it off, and the model level is then w_k / H(p_k)
    models    whether members are weighted as a whole
    anchor    the member that is not filtered and has half of the weight or more
    top       words that count as consistent or not: so many of each member and of the mean; all by default

    Raises ValueError for outputs without a word axis, another filter, a `top` below one, an anchor that is no member,
    and weights that are negative, not finite, or zero for all members of an example.

    >>> consistency(torch.tensor([[[0.8, 0.2]], [[0.8, 0.2]]]).log()).exp()
    tensor([[0.8000, 0.2000]])
    """
    probs, spread = _probabilities(outputs, weights, tokens, anchor, top)
    factors, sums = _filtered(probs, spread, tokens, anchor, top)
    joint = (_members(probs, spread, sums, anchor, models)[..., None] * factors * probs).sum(0)
    return (joint / joint.sum(-1, keepdim=True)).log().to(outputs.dtype)


def model_consistency(
    outputs: Tensor,
    weights: Tensor | None = None,
    *,
    tokens: Filter | None = "rbf",
    anchor: int | None = None,
    top: int | None = None,
) -> Tensor:
    """The members' weights u `[K, N, ...]`, float64, that sum to one over members; arguments as for `consistency`."""
    probs, spread = _probabilities(outputs, weights, tokens, anchor, top)
    _, sums = _filtered(probs, spread, tokens, anchor, top)
    return _members(probs, spread, sums, anchor, True)


def token_consistency(
    outputs: Tensor,
    weights: Tensor | None = None,
    *,
    tokens: Filter = "rbf",
    anchor: int | None = None,
    top: int | None = None,
) -> Tensor:
    """The factors g `[K, N, ..., V]`, float64, with mean one over S_k; arguments as for `consistency`."""
    probs, spread = _probabilities(outputs, weights, tokens, anchor, top)
    return _filtered(probs, spread, tokens, anchor, top)[0]


def _probabilities(
    outputs: Tensor, weights: Tensor | None, tokens: str | None, anchor: int | None, top: int | None
) -> tuple[Tensor, Tensor]:
    """Probabilities `[K, N, ..., V]` and weights `[K, N, ...]` that sum to one; a member of weight zero is not read."""
    spread = spread_weights(outputs, weights)
    if outputs.ndim < 3:
        raise ValueError(f"outputs must be [K, N, ..., V], not {list(outputs.shape)}")
    if tokens is not None and tokens not in FILTERS:
        raise ValueError(f"the token filter is one of {', '.join(FILTERS)}, or None; got {tokens!r}")
    if top is not None and top < 1:
        raise ValueError(f"top is one word or more; got {top}")
    if anchor is not None and not 0 <= anchor < len(outputs):
        raise ValueError(f"the anchor is a member, 0..{len(outputs) - 1}; got {anchor}")
    if not bool((spread.sum(0) > 0).all()):
        raise ValueError("the members' weights must have a positive sum for every example")
    spread = (spread / spread.sum(0)).reshape(*spread.shape, *[1] * (outputs.ndim - 3)).expand(outputs.shape[:-1])
    probs = outputs.to(torch.float64).softmax(-1)
    return torch.where(spread[..., None] > 0, probs, 0.0), spread


def _filtered(
    probs: Tensor, spread: Tensor, tokens: Filter | None, anchor: int | None, top: int | None
) -> tuple[Tensor, Tensor]:
    """The factors `[K, N, ..., V]` and the sums of f `[K, N, ...]`; ones where the filter is off."""
    if tokens is None:
        return torch.ones_like(probs), torch.ones_like(spread)
    mean = (spread[..., None] * probs).sum(0)
    support = _support(probs, top) | _support(mean, top)
    near = torch.where(support, FILTERS[tokens]((probs - mean).abs()).clamp(min=0.0), 0.0)
    sums = near.sum(-1)
    # Where no word of a member is near the mean at all, it says nothing: its factors stay zero on the support.
    scale = support.sum(-1) / sums.clamp(min=torch.finfo(sums.dtype).tiny)
    factors = torch.where(support, near * scale[..., None], 1.0)
    if anchor is not None:
        factors[anchor] = 1.0
    return factors, sums


def _support(probs: Tensor, top: int | None) -> Tensor:
    """Words that are possible, and among the `top` most probable; those level with the last one count as well."""
    if top is None or top >= probs.shape[-1]:
        return probs > 0
    return (probs > 0) & (probs >= probs.topk(top, dim=-1).values[..., -1:])


def _members(probs: Tensor, spread: Tensor, sums: Tensor, anchor: int | None, models: bool) -> Tensor:
    """Weights `[K, N, ...]` that sum to one."""
    certain = torch.special.entr(probs).sum(-1).clamp(min=LEAST_ENTROPY)
    found = spread * sums / certain if models else spread
    found = torch.where(found.sum(0) > 0, found, spread)
    found = found / found.sum(0)
    if anchor is None:
        return found
    others = found.sum(0) - found[anchor]
    own = torch.maximum(found[anchor], others)
    rest = torch.where(own > 0, found / (own + others), 0.0)
    rest[anchor] = own / (own + others)
    return rest
