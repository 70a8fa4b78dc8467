"""K members of one network while they are trained: each tensor is shared, a member's own, or made of both.

    member m computes f(x; w_m)      w_m[name] = part[name](m)

A part is a module with its own parameters; it gives a member's tensor, and the family that it becomes. Expansions
(BatchEnsemble, LoRA, late-phase weights, subspaces) are functions from a network to its population. Members run in a
loop, so that each may see data of its own.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from pluria.core.calling import call
from pluria.core.ensemble import Ensemble
from pluria.core.family import Family, Shared, Stacked
from pluria.core.model import tensors, ties
from pluria.core.params import Params, check_same


class Part(nn.Module):
    """One tensor of a population. Subclasses give `forward(member) -> Tensor` and `family`."""

    def family(self) -> Family:
        """What the part is once it is trained."""
        raise TypeError(f"{type(self).__name__} does not say which family it becomes")

    def common(self) -> list[nn.Parameter]:
        """The part's parameters that all members share."""
        return []

    def mean(self) -> Tensor:
        """The tensor of the one network that all members are averaged to, in the space of what each of them owns."""
        raise TypeError(f"{type(self).__name__} does not say what its mean is")


class SharedPart(Part):
    """The same tensor for every member; learned where it is a parameter that takes gradients."""

    def __init__(self, value: Tensor) -> None:
        super().__init__()
        self.value = _learned(value) if isinstance(value, nn.Parameter) else nn.Buffer(value.detach().clone())

    def forward(self, member: int) -> Tensor:
        """The one value."""
        return self.value

    def family(self) -> Family:
        """Shared."""
        return Shared(self.value.detach().clone())

    def common(self) -> list[nn.Parameter]:
        """The one value, where it is a parameter."""
        return [self.value] if isinstance(self.value, nn.Parameter) else []

    def mean(self) -> Tensor:
        """The one value."""
        return self.value.detach().clone()


class OwnPart(Part):
    """A tensor for each member, `[K, *shape]`, all equal at first unless `values` are given."""

    def __init__(self, value: Tensor, members: int, values: Tensor | None = None) -> None:
        super().__init__()
        held = value.detach().expand(members, *value.shape).clone() if values is None else values.detach().clone()
        self.values = _like(held, value)

    def forward(self, member: int) -> Tensor:
        """The row of the member; statistics that are moved in place are moved there."""
        return self.values[member]

    def family(self) -> Family:
        """Stacked."""
        return Stacked(self.values.detach().clone())

    def mean(self) -> Tensor:
        """Over the members; of whole numbers the first."""
        return self.values.detach().mean(0) if self.values.is_floating_point() else self.values[0].clone()


class Population(nn.Module):
    """A network's members in training. `parts` replaces the default: parameters shared, buffers each member's own.

    The network is copied; what is copied is never trained. `forward(x)` gives `[K, N, ...]`, with `member=` one
    member's `[N, ...]`. Parameters and optimisers are used as those of any module; tied names share one part.
    """

    def __init__(self, model: nn.Module, *, members: int, parts: Mapping[str, Part] | None = None) -> None:
        super().__init__()
        check_members(members)
        own, self.members, self.ties = tensors(model), members, ties(model)
        if unknown := [name for name in parts or {} if name not in own]:
            raise ValueError(f"parts for tensors that the network does not have: {', '.join(unknown[:5])}")
        given = {self.ties[name]: part for name, part in (parts or {}).items()}
        made = {name: given.get(name) or _default(own[name], members) for name in dict.fromkeys(self.ties.values())}
        # Names of modules have no dots.
        self.parts = nn.ModuleDict({name.replace(".", "/"): part for name, part in made.items()})
        self.network = copy.deepcopy(model).requires_grad_(False)

    def params(self, member: int) -> dict[str, Tensor]:
        """The member's tensors, with their gradients' paths."""
        made = {name.replace("/", "."): part(member) for name, part in self.parts.items()}
        return {name: made[first] for name, first in self.ties.items()}

    def forward(self, inputs: Any, *, member: int | None = None) -> Any:
        """What one member gives, or the outputs of all, stacked."""
        if member is None:
            return torch.stack([self(inputs, member=each) for each in range(self.members)])
        if not 0 <= member < self.members:
            raise IndexError(f"member {member} does not exist; members are 0..{self.members - 1}")
        return evaluate(self.network, self.params(member), inputs)

    def ensemble(self) -> Ensemble:
        """The members as they stand, of the original network."""
        made = {name: part.family() for name, part in self._named()}
        return Ensemble({name: made[first] for name, first in self.ties.items()}, tuple(range(self.members)))

    def average(self) -> Ensemble:
        """One network: what is shared, with the mean of what members own. Batch-norm statistics are to be refreshed."""
        made: dict[str, Family] = {name: Shared(part.mean()) for name, part in self._named()}
        return Ensemble({name: made[first] for name, first in self.ties.items()}, (0,))

    def common(self) -> list[nn.Parameter]:
        """The learned parameters that all members share; the others are one member's each."""
        return [value for _, part in self._named() for value in part.common() if value.requires_grad]

    def _named(self) -> Iterator[tuple[str, Part]]:
        for name, part in self.parts.items():
            assert isinstance(part, Part)
            yield name.replace("/", "."), part


def check_members(members: int) -> None:
    """Raise ValueError for fewer than one member."""
    if members < 1:
        raise ValueError(f"a population has one member or more; got {members}")


def together(models: Sequence[nn.Module]) -> Population:
    """A population of independent networks, for losses that look at several at once.

    Raises ValueError for no network, CheckpointError for networks that differ in their tensors.
    """
    if not models:
        raise ValueError("no networks to train together; give one or more")
    own = [tensors(model) for model in models]
    check_same(own)
    parts = {n: OwnPart(value, len(own), torch.stack([each[n] for each in own])) for n, value in own[0].items()}
    return Population(models[0], members=len(own), parts=parts)


def evaluate(network: nn.Module, params: Params, inputs: Any) -> Any:
    """The network's output with these tensors in place of its own; gradients go to them."""
    return call(lambda *a, **k: functional_call(network, dict(params), a, k), inputs)


def _default(value: Tensor, members: int) -> Part:
    return SharedPart(value) if isinstance(value, nn.Parameter) else OwnPart(value, members)


def _learned(value: nn.Parameter) -> nn.Parameter:
    """A copy that is learned or frozen as the value is."""
    return nn.Parameter(value.detach().clone(), requires_grad=value.requires_grad)


def _like(held: Tensor, value: Tensor) -> Tensor:
    """A parameter where the value is one, else a buffer."""
    if isinstance(value, nn.Parameter):
        return nn.Parameter(held, requires_grad=value.requires_grad)
    return nn.Buffer(held)
