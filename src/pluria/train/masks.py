"""Masks over a network's weights: which elements each member has. All are bool, drawn at addresses.

    disjoint   every element belongs to one member: floor(n / K) or one more of a tensor's n elements each
    paired     of two members one has what the other lacks; each pair keeps `density` and the rest
    channels   Masksembles: M ones over C channels, drawn until C of M S places are used, the same for a whole channel

Sources: Zhang, Gao and Sabuncu, "Ex Uno Plures", 2021; Whitaker and Whitley, "Prune and Tune Ensembles", AAAI 2022;
Durasov et al., "Masksembles for Uncertainty Estimation", CVPR 2021.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from pluria.core.family import Family, Shared, Stacked
from pluria.core.masked import masked
from pluria.core.model import roles
from pluria.numbers.key import Key
from pluria.train.factors import LAYERS, last_weight, weights_of
from pluria.train.fresh import fresh_order, fresh_uniforms
from pluria.train.population import Part, check_members

Masks = Mapping[str, Tensor]
"""Names of weights to bool `[K, *shape]`."""

TRIES = 1000


class MaskedPart(Part):
    """A base, one for all or `[K, *shape]`, under bool masks `[K, *shape]`."""

    def __init__(self, base: nn.Parameter, masks: Tensor, *, shared: bool) -> None:
        super().__init__()
        held = base.detach().clone() if shared else base.detach().expand(masks.shape).clone()
        self.base, self.shared = nn.Parameter(held, requires_grad=base.requires_grad), shared
        self.masks = nn.Buffer(masks.to(base.device, copy=True))

    def forward(self, member: int) -> Tensor:
        """The member's tensor: gradients reach the elements it has, and no others."""
        own = self.base if self.shared else self.base[member]
        return torch.where(self.masks[member], own, torch.zeros((), dtype=own.dtype, device=own.device))

    def common(self) -> list[nn.Parameter]:
        """The base, where there is one for all."""
        return [self.base] if self.shared else []

    def family(self) -> Family:
        """Masked."""
        held = self.base.detach().clone()
        return masked(Shared(held) if self.shared else Stacked(held), self.masks)

    def mean(self) -> Tensor:
        """Over the members, zeros where they lack an element."""
        return torch.stack([self(member) for member in range(len(self.masks))]).mean(0).detach()


def hidden_weights(model: nn.Module, what: str) -> dict[str, nn.Parameter]:
    """The weights of linear and convolutional layers but the last. Raises ValueError where there are none."""
    found, last = weights_of(model, what), last_weight(model, what)
    hidden = {name: weight for name, weight in found.items() if name != last}
    if not hidden:
        raise ValueError(f"{what} needs two layers or more, since the last is left whole; there is {last}")
    return hidden


def disjoint_masks(model: nn.Module, *, members: int, key: Key | int = 0) -> dict[str, Tensor]:
    """Masks of the hidden weights that give every element to one member, at random."""
    check_members(members)
    key = key if isinstance(key, Key) else Key(key)
    made = {}
    for name, weight in hidden_weights(model, "a split into subnetworks").items():
        if weight.numel() < members:
            raise ValueError(f"{name} has {weight.numel()} elements, too few for {members} members")
        owner = fresh_order(f"{name}\0owner", weight.numel(), key).to(weight.device) % members
        made[name] = torch.stack([owner == member for member in range(members)]).view(members, *weight.shape)
    return made


def paired_masks(model: nn.Module, *, members: int, density: float = 0.5, key: Key | int = 0) -> dict[str, Tensor]:
    """Masks of the hidden weights: members 2i keep `density` of each at random, members 2i + 1 exactly the others."""
    if not 0 < density < 1:
        raise ValueError(f"a density lies between 0 and 1; got {density}")
    check_members(members)
    key = key if isinstance(key, Key) else Key(key)
    made = {}
    for name, weight in hidden_weights(model, "pruning").items():
        keep = round(density * weight.numel())
        orders = [fresh_order(f"{name}\0pair", weight.numel(), key, group=pair) for pair in range(-(-members // 2))]
        both = [row for order in orders for kept in (order.to(weight.device) < keep,) for row in (kept, ~kept)]
        made[name] = torch.stack(both[:members]).view(members, *weight.shape)
    return made


def channel_masks(model: nn.Module, *, members: int, scale: float = 2.0, key: Key | int = 0) -> dict[str, Tensor]:
    """Masks of what each layer but the first reads: of its input channels, as Masksembles masks the activations.

    `scale` S is 1 for members that are all alike, large for members that share few channels. Raises ValueError where
    no such masks exist for a layer's width, for one layer alone, and for layers whose weight does not have its inputs
    on the second axis, all of them: grouped and transposed convolutions, and a Conv1D of Hugging Face.
    """
    if not scale >= 1:
        raise ValueError(f"the scale is 1 (members alike) or more (members apart); got {scale}")
    check_members(members)
    key = key if isinstance(key, Key) else Key(key)
    reading = list(weights_of(model, "Masksembles", kinds=(*LAYERS, "head")).items())
    if len(reading) < 2:
        raise ValueError(f"Masksembles needs two layers or more, since the first reads all; there is {reading[0][0]}")
    made = {}
    for name, weight in reading[1:]:
        _refuse_other_axes(model, name)
        rows = _channels(name, weight.shape[1], members, scale, key).to(weight.device)
        made[name] = rows.view(members, 1, -1, *(1 for _ in weight.shape[2:])).expand(members, *weight.shape).clone()
    return made


def _refuse_other_axes(model: nn.Module, name: str) -> None:
    module = model.get_submodule(name.rpartition(".")[0])
    if roles(model)[name].axis or getattr(module, "groups", 1) != 1:
        raise ValueError(
            f"{name} is of a {type(module).__name__}, grouped or transposed, whose inputs are not its second axis; "
            "Masksembles masks plain linear and convolutional layers"
        )


def _channels(name: str, width: int, members: int, scale: float, key: Key) -> Tensor:
    """bool `[K, width]`: `ones` of round(ones S) places each, on the places that any member uses."""
    if scale == 1:
        return torch.ones(members, width, dtype=torch.bool)
    expected = scale * (1 - (1 - 1 / scale) ** members)
    for shift in (0, 1, -1, 2, -2):
        ones = round(width / expected) + shift
        places = round(ones * scale)
        for trial in range(TRIES if 0 < ones <= width <= places else 0):
            drawn = fresh_uniforms(f"{name}\0channels", (members, places), key, group=trial)
            rows = torch.zeros(members, places, dtype=torch.bool).scatter_(1, drawn.argsort(1)[:, :ones], True)
            if int(rows.any(0).sum()) == width:
                return rows[:, rows.any(0)]
    raise ValueError(f"no masks of scale {scale} were found for the {width} channels that {name} reads; take another")
