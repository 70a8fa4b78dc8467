"""All that the scores of diversity need of the members, as sums over the member axis: memory does not grow with K.

For members with probabilities p_k and weights w_k the state holds, per example and class,
sum w log p, sum w p and the weight of the members that vote for the class, and per example sum w, sum w^2,
sum w sum_c p_c^2 and sum w H(p). Blocks of members and shards add up.
"""

from dataclasses import dataclass, fields

import torch
from torch import Tensor

from pluria.core.weights import spread_weights


@dataclass(frozen=True, eq=False)
class MemberSums:
    """Sums over members, float64: `log_probs`, `probs`, `votes` are `[N, C]`, the others `[N]`. `+` merges members.

    The properties below are weighted means: the sums over the total weight.
    """

    log_probs: Tensor
    probs: Tensor
    votes: Tensor
    squares: Tensor
    entropies: Tensor
    total: Tensor
    total_squared: Tensor

    def __add__(self, other: "MemberSums") -> "MemberSums":
        if self.probs.shape != other.probs.shape:
            raise ValueError(f"members of {list(self.probs.shape)} and {list(other.probs.shape)} do not fit together")
        return MemberSums(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))

    def rows(self, kept: Tensor) -> "MemberSums":
        """The same members on some of the examples: `kept` is a mask or indices."""
        return MemberSums(*(getattr(self, f.name)[kept] for f in fields(self)))

    @property
    def mean_log_probs(self) -> Tensor:
        """sum_k w_k log p_k `[N, C]`: not normalised over the classes."""
        return self._share(self.log_probs)

    @property
    def mean_probs(self) -> Tensor:
        """sum_k w_k p_k `[N, C]`."""
        return self._share(self.probs)

    @property
    def vote_shares(self) -> Tensor:
        """Weight of the members whose most probable class is c, `[N, C]`."""
        return self._share(self.votes)

    @property
    def mean_square(self) -> Tensor:
        """sum_k w_k sum_c p_kc^2 `[N]`."""
        return self._share(self.squares)

    @property
    def mean_entropy(self) -> Tensor:
        """sum_k w_k H(p_k) `[N]`, in nats."""
        return self._share(self.entropies)

    @property
    def same_member(self) -> Tensor:
        """sum_k w_k^2 `[N]`: the chance that two members drawn by weight are one and the same."""
        return self.total_squared / self.total.square()

    def _share(self, sums: Tensor) -> Tensor:
        if not bool((self.total > 0).all()):
            raise ValueError("the members' weights must have a positive sum for every example")
        return sums / (self.total if sums.ndim == 1 else self.total[:, None])


def member_sums(outputs: Tensor, weights: Tensor | None = None) -> MemberSums:
    """The sums of members' logits or log-probabilities `[K, N, C]` with weights `[K]`, `[K, N]` or None (equal).

    A member of weight zero is not read. Weights count as given, so that blocks of members add up.
    Refused: `TypeError` for outputs that are not floating point; `ValueError` for other shapes, NaN, and negative or
    non-finite weights. Reading a mean where all weights of an example are zero is a `ValueError` too.

    >>> member_sums(torch.tensor([[[0.9, 0.1]], [[0.5, 0.5]]]).log()).mean_probs
    tensor([[0.7000, 0.3000]], dtype=torch.float64)
    """
    spread = spread_weights(outputs, weights)
    if outputs.ndim != 3:
        raise ValueError(f"outputs must be [K, N, C], not {list(outputs.shape)}; see flatten")
    wide = spread[..., None]
    log_probs = torch.where(wide > 0, outputs.to(torch.float64), 0.0).log_softmax(-1)
    bad = log_probs.isnan().any(-1).nonzero()
    if len(bad):
        raise ValueError(f"member {int(bad[0, 0])} holds NaN or +inf at example {int(bad[0, 1])}; give it weight zero")
    probs = log_probs.exp()
    votes = torch.zeros_like(probs).scatter_(-1, log_probs.argmax(-1, keepdim=True), 1.0)
    return MemberSums(
        log_probs=torch.where(wide > 0, wide * log_probs, 0.0).sum(0),
        probs=(wide * probs).sum(0),
        votes=(wide * votes).sum(0),
        squares=(spread * probs.square().sum(-1)).sum(0),
        entropies=(spread * torch.special.entr(probs).sum(-1)).sum(0),
        total=spread.sum(0),
        total_squared=spread.square().sum(0),
    )
