"""Members by thin factors of a network's layers: BatchEnsemble, rank-1 weights, LoRA ensembles.

    BatchEnsemble  w_m = w * (s_m r_m')          s_m `[out]`, r_m `[in]`, learned with w
    LoRA           w_m = w + (scale / r) B_m A_m     B_m `[out, r]` zero at first, A_m `[r, in]`, w frozen

With factors of one, and with B zero, every member gives the original's outputs before it is trained. Factors of one on
the same data never part: give each member data of its own, or draw them.

Sources: Wen, Tran and Ba, "BatchEnsemble", ICLR 2020; Halbheer et al., "LoRA-Ensemble", 2024.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn

from pluria.core.factored import Factored, spread
from pluria.core.family import Family, Shared
from pluria.core.model import roles
from pluria.numbers.key import Key
from pluria.train.fresh import fresh_normals, fresh_uniforms
from pluria.train.population import OwnPart, Part, Population, SharedPart

Init = Literal["ones", "sign", "normal"]
Op = Literal["add", "multiply"]
LAYERS = ("linear", "conv")


class FactoredPart(Part):
    """A base and factors `left` `[K, rows, r]`, `right` `[K, r, columns]`, added or multiplied in."""

    def __init__(
        self, base: nn.Parameter, left: Tensor, right: Tensor, op: Op, *, learn: bool = True, scale: float = 1.0
    ) -> None:
        super().__init__()
        self.base = nn.Parameter(base.detach().clone(), requires_grad=learn and base.requires_grad)
        self.left, self.right, self.scale = nn.Parameter(left), nn.Parameter(right), scale
        self.op: Op = op

    def forward(self, member: int) -> Tensor:
        """The member's tensor."""
        return self._with(self.left[member], self.right[member])

    def _with(self, left: Tensor, right: Tensor) -> Tensor:
        product = self.scale * (left @ right).view(spread(self.base.shape, right.shape[1]))
        return self.base + product if self.op == "add" else self.base * product

    def family(self) -> Family:
        """Factored."""
        left, right = self.scale * self.left.detach(), self.right.detach().clone()
        return Factored(Shared(self.base.detach().clone()), left, right, self.op)

    def common(self) -> list[nn.Parameter]:
        """The base."""
        return [self.base]

    def mean(self) -> Tensor:
        """With the mean of the factors."""
        return self._with(self.left.mean(0), self.right.mean(0)).detach()


def batch_ensemble(
    model: nn.Module, *, members: int, init: Init = "normal", spread: float = 0.5, key: Key | int = 0
) -> Population:
    """A population whose linear and convolutional weights have a rank-1 factor for each member, and own biases.

    init   "ones" (exact: every member is the original), "sign" (random +1 and -1), "normal" (around 1, by `spread`)

    "sign" and "normal" change the function before training, by design. Frozen weights have no factors. Raises
    ValueError without such layers.
    """
    if init not in ("ones", "sign", "normal"):
        raise ValueError(f"factors begin as 'ones', 'sign' or 'normal'; got {init!r}")
    key = key if isinstance(key, Key) else Key(key)
    parts: dict[str, Part] = {}
    for name, weight in weights_of(model, "BatchEnsemble", learned=True).items():
        left, right = (
            _begin(f"{name}\0{axis}", (members, size), init, spread, key).to(weight)
            for axis, size in enumerate(weight.shape[:2])
        )
        parts[name] = FactoredPart(weight, left.unsqueeze(2), right.unsqueeze(1), "multiply")
    return Population(model, members=members, parts=parts | _biases(model, parts, members))


def lora(
    model: nn.Module,
    *,
    members: int,
    rank: int = 8,
    scale: float | None = None,
    gain: float = 10.0,
    where: tuple[str, ...] | None = None,
    own: tuple[str, ...] = (),
    key: Key | int = 0,
) -> Population:
    """A population with a low-rank update of the frozen network's linear weights for each member.

    scale   of the update, over the rank; by default the rank, so that the update is B A
    gain    of A's Xavier-uniform start: large, since that is where members differ
    where   endings of names of the weights that are updated; all linear layers without
    own     endings of names that each member has and learns whole, as its head

    Every member is the original before training. Raises ValueError where no weight has such a name, for each ending.
    """
    if rank < 1:
        raise ValueError(f"the rank of an update is 1 or more; got {rank}")
    key, factor = key if isinstance(key, Key) else Key(key), 1.0 if scale is None else scale / rank
    parts: dict[str, Part] = {}
    if lost := [end for end in own if not any(name.endswith(end) for name, _ in model.named_parameters())]:
        raise ValueError(f"no parameter has a name that ends with {', '.join(lost)}, which `own` names")
    for name, value in model.named_parameters():
        whole = nn.Parameter(value.detach()) if name.endswith(own) and own else None
        frozen = nn.Parameter(value.detach(), requires_grad=False)
        parts[name] = SharedPart(frozen) if whole is None else OwnPart(whole, members)
    linear = weights_of(model, "LoRA", kinds=("linear",))
    found = [n for n in linear if (where is None or n.endswith(where)) and isinstance(parts[n], SharedPart)]
    if not found:
        there = ", ".join(linear)
        raise ValueError(f"no linear weight has a name that ends with {', '.join(where or ())}; there are {there}")
    for name in found:
        weight = linear[name]
        rows, columns = weight.shape[0], weight.shape[1:].numel()
        bound = gain * math.sqrt(6 / (rank + columns))
        right = bound * (2 * fresh_uniforms(f"{name}\0A", (members, rank, columns), key) - 1).to(weight)
        left = weight.new_zeros(members, rows, rank)
        parts[name] = FactoredPart(weight, left, right, "add", learn=False, scale=factor)
    return Population(model, members=members, parts=parts)


def weights_of(
    model: nn.Module, what: str, *, kinds: tuple[str, ...] = LAYERS, learned: bool = False
) -> dict[str, nn.Parameter]:
    """Weights of two axes or more of these kinds, one name for each; with `learned` those that are not frozen.

    Raises ValueError where there is none.
    """
    found, own = roles(model), dict(model.named_parameters())
    weights = {name: value for name, value in own.items() if found[name].kind in kinds and value.ndim > 1}
    if learned and weights and not any(value.requires_grad for value in weights.values()):
        raise ValueError(f"{what} needs weights that learn; all of the network's are frozen: {', '.join(weights)}")
    if not weights:
        raise ValueError(f"{what} needs weights of {' or '.join(kinds)} layers; the network has none")
    return {name: value for name, value in weights.items() if value.requires_grad or not learned}


def last_weight(model: nn.Module, what: str) -> str:
    """The name of the weight of the last layer: a language model's own output layer, or the last in order."""
    heads = [name for name, role in roles(model).items() if role.kind == "head"]
    return heads[-1] if heads else list(weights_of(model, what))[-1]


def _biases(model: nn.Module, weights: dict[str, Part], members: int) -> dict[str, Part]:
    """Each member's own biases, of the layers whose weights have factors."""
    names = {name.removesuffix("weight") + "bias" for name in weights}
    return {name: OwnPart(value, members) for name, value in model.named_parameters() if name in names}


def _begin(name: str, shape: tuple[int, ...], init: Init, spread: float, key: Key) -> Tensor:
    if init == "ones":
        return torch.ones(shape)
    if init == "sign":
        return torch.where(fresh_uniforms(name, shape, key) < 0.5, -1.0, 1.0)
    return 1 + spread * fresh_normals(name, shape, key)
