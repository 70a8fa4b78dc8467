"""An ensemble: a family for each named tensor, the numbers of its members, and their mixing weights."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType

import torch
from torch import Tensor

from pluria.core.family import Bits, Family, Joined, Shared, Stacked, check_member, kept_bits, map_tensors
from pluria.core.params import Params, check_same, memory
from pluria.core.weights import checked_weights

UNIFORM = torch.empty(0, dtype=torch.float64)
"""Stands for equal mixing weights, whatever the number of members."""


@dataclass(frozen=True, eq=False)
class Ensemble:
    """Members of one network. `weights` is float64 `[K]` and sums to one; left out, it is uniform.

    Tied names hold the same Family object. Members are numbered; numbers stay with their members when some are taken.

    >>> e = stack([{"w": torch.zeros(2)}, {"w": torch.ones(2)}])
    >>> len(e), e.params(1)["w"]
    (2, tensor([1., 1.]))
    """

    families: Mapping[str, Family]
    members: tuple[int, ...]
    weights: Tensor = field(default_factory=lambda: UNIFORM)

    def __post_init__(self) -> None:
        if not self.members:
            raise ValueError("an ensemble needs at least one member")
        for name, family in self.families.items():
            for end in (min(self.members), max(self.members)):
                try:
                    check_member(end, family.size)
                except IndexError as error:
                    raise ValueError(f"tensor {name!r}: {error}") from None
        object.__setattr__(self, "families", MappingProxyType(dict(self.families)))
        object.__setattr__(self, "weights", _normalised(self.weights, len(self.members)))

    def __len__(self) -> int:
        return len(self.members)

    def __reduce__(self) -> tuple[object, ...]:
        return Ensemble, (dict(self.families), self.members, self.weights)

    def params(
        self, member: int, *, device: torch.device | None = None, dtype: torch.dtype | None = None
    ) -> dict[str, Tensor]:
        """The tensors of member number `member`; `dtype` changes floating tensors only. Tied names share one tensor."""
        made: dict[int, Tensor] = {}
        for family in self.families.values():
            if id(family) not in made:
                kind = dtype if dtype is not None and family.dtype.is_floating_point else family.dtype
                made[id(family)] = torch.empty(family.shape, dtype=kind, device=device)
                family.write(member, made[id(family)])
        return {name: made[id(family)] for name, family in self.families.items()}

    def write(self, member: int, params: Params) -> None:
        """Write member number `member` in place into the tensors of `params`; each family is written once."""
        done: set[Hashable] = set()
        with torch.no_grad():
            for name, family in self.families.items():
                out = params[name]
                if (place := memory(out)) not in done:
                    done.add(place)
                    family.write(member, out)

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        return (self.params(member) for member in self.members)

    def first(self, count: int) -> Ensemble:
        """The first `count` members with their weights, normalised again."""
        return self.take(range(count))

    def take(self, positions: Sequence[int]) -> Ensemble:
        """The members at these positions (not numbers), in this order, with their weights normalised again."""
        at = list(positions)
        if at and not -len(self) <= min(at) <= max(at) < len(self):
            raise IndexError(f"{len(self)} members are at positions 0..{len(self) - 1}; got {at}")
        return replace(self, members=tuple(self.members[i] for i in at), weights=self.weights[at])

    def reweight(self, weights: Tensor | None) -> Ensemble:
        """The same members with other mixing weights `[K]`, non-negative; they are normalised. None: uniform."""
        return replace(self, weights=UNIFORM if weights is None else weights)

    def with_families(self, families: Mapping[str, Family]) -> Ensemble:
        """The same members with some families replaced."""
        return replace(self, families={**self.families, **families})

    def to(self, device: torch.device | str) -> Ensemble:
        """The same ensemble with all tensors on `device`; tied names stay tied."""
        moved: dict[int, Family] = {}
        for family in self.families.values():
            moved.setdefault(id(family), map_tensors(family, lambda tensor: tensor.to(device)))
        return self.with_families({name: moved[id(family)] for name, family in self.families.items()})

    def outline(self) -> dict[str, Tensor]:
        """A member's names, shapes and dtypes, as tensors without data on the device `meta`."""
        return {n: torch.empty(f.shape, dtype=f.dtype, device="meta") for n, f in self.families.items()}

    def bits(self) -> Bits:
        """What the members cost to store; tensors that are one and the same count once.

        `file` is exact but for the header and for tensors that are equal without being the same, which a file keeps
        once; `pluria.store.file_size` counts those too.
        """
        total = Bits.same(0)
        families = {id(family): family for family in self.families.values()}.values()
        for family in families:
            total += family.bits(self.members)
        return replace(total, file=kept_bits(families))


def single(params: Params) -> Ensemble:
    """An ensemble of one: full precision. The tensors are used as they are; tied names stay tied."""
    shared: dict[Hashable, Family] = {}
    held = dict(params)
    return Ensemble({n: shared.setdefault(memory(v), Shared(v.detach())) for n, v in held.items()}, (0,))


def stack(several: Sequence[Params]) -> Ensemble:
    """An ensemble of checkpoints with equal names and shapes, kept one by one (copied)."""
    if not several:
        raise ValueError("no checkpoints to stack; give one or more")
    check_same(several)
    held = [dict(params) for params in several]
    made: dict[Hashable, Family] = {}
    families: dict[str, Family] = {}
    for name in held[0]:
        tied = tuple(memory(params[name]) for params in held)
        if tied not in made:
            made[tied] = Stacked(torch.stack([params[name].detach() for params in held]))
        families[name] = made[tied]
    return Ensemble(families, tuple(range(len(several))))


def join(*ensembles: Ensemble, weights: Tensor | None = None) -> Ensemble:
    """Members of several ensembles of one network end to end, numbered anew from zero; uniform unless weighted."""
    if not ensembles:
        raise ValueError("no ensembles to join; give one or more")
    names = list(ensembles[0].families)
    for other in ensembles[1:]:
        check_same([ensembles[0].outline(), other.outline()])
    ids = tuple(ensemble.members for ensemble in ensembles)
    made: dict[tuple[int, ...], Family] = {}
    families: dict[str, Family] = {}
    for name in names:
        parts = tuple(ensemble.families[name] for ensemble in ensembles)
        families[name] = made.setdefault(tuple(map(id, parts)), Joined(parts, ids))
    return Ensemble(families, tuple(range(sum(map(len, ids)))), UNIFORM if weights is None else weights)


def _normalised(weights: Tensor, count: int) -> Tensor:
    if weights is UNIFORM:
        return torch.full((count,), 1.0 / count, dtype=torch.float64)
    weights = checked_weights(weights).cpu()
    if weights.shape != (count,):
        raise ValueError(f"{count} members need weights of shape ({count},); got {tuple(weights.shape)}")
    if not (total := float(weights.sum())) > 0:
        raise ValueError(f"mixing weights are not all zero; got {weights.tolist()}")
    # Weights that sum to one already keep their bits, or every copy of an ensemble would move the last of them.
    return weights.clone() if abs(total - 1.0) <= count * torch.finfo(torch.float64).eps else weights / total
