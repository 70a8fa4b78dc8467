"""EnsembleLinear: one linear layer for K members, which reads its weights once for up to eight of them.

    y[m] = scale ∘ (integers[m] x[m]) + bias        x [..., D] that all members share, or [K, ..., D]; y [K, ..., O]

In a network the member axis is carried by `torch.func.vmap`: a layer sees `[..., D]` of one member, and its rule for
vmap hands the rows of all members to one product. Everything else of the network is batched by vmap as it always is.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from pluria.core.calling import place
from pluria.core.ensemble import Ensemble
from pluria.core.family import Family, Stacked, map_tensors
from pluria.core.model import working_copy
from pluria.predict.kernels.operands import Operand, drawn, planes, unfit
from pluria.predict.kernels.product import Tiles, product
from pluria.predict.vmap import side_by_side

Form = Literal["planes", "drawn"]
READERS = (nn.TransformerEncoderLayer,)
"""Modules that read the weights of their linear layers themselves, in a fused path of their own."""


class EnsembleLinear(nn.Module):
    """Members of one linear layer: `[..., D]`, shared by all of them, to `[K, ..., O]`; inference only.

    family   the weight, `[O, D]`: Rounded from one base, or stored planes, in an integer format
    members  their numbers, in the order of the first axis of what comes out
    bias     `[O]`, or one for each member, `[K, O]`
    form     "planes": one-byte floor codes and one bit for each member, two bytes per weight for eight members;
             "drawn": the base alone, and members drawn anew in every product

    `each` takes inputs of their own for the members, and so does vmap. On a GPU with Triton this is one kernel,
    elsewhere plain torch, member by member. Raises ValueError for a family without a shared floor.
    """

    operand: Operand
    bias: Tensor | None
    member: Tensor

    def __init__(
        self,
        family: Family,
        members: Sequence[int],
        *,
        bias: Tensor | None = None,
        form: Form = "planes",
        tiles: Tiles | None = None,
    ) -> None:
        super().__init__()
        if form not in ("planes", "drawn"):
            raise ValueError(f"a form is 'planes' or 'drawn'; got {form!r}")
        self.family, self.form, self.tiles = family, form, tiles
        self.members: tuple[int, ...] = ()
        self.register_parameter("bias", None if bias is None else nn.Parameter(bias.detach(), requires_grad=False))
        self.load(members)
        # Zero-dimensional: what vmap batches over the members, where nothing else in the layer is.
        self.register_buffer("member", torch.zeros((), dtype=torch.int64, device=self.operand.scale.device))

    def load(self, members: Sequence[int]) -> None:
        """Hold these members from now on."""
        if not members:
            raise ValueError("a layer needs at least one member")
        if self.members != tuple(members):
            self.operand = (planes if self.form == "planes" else drawn)(self.family, members)
            self.members = tuple(members)

    def forward(self, x: Tensor) -> Tensor:
        """`[K, ..., O]` of `[..., D]` that all members share; under vmap over the members `[..., O]` of one."""
        return _Product.apply(x, self.bias, self.member, self)  # type: ignore[no-any-return, no-untyped-call]

    def each(self, x: Tensor) -> Tensor:
        """`[K, ..., O]` of `[K, ..., D]`."""
        if x.ndim < 2 or len(x) != len(self.members):
            raise ValueError(
                f"inputs of {len(self.members)} members are [{len(self.members)}, ..., D]; got {list(x.shape)}"
            )
        return self._product(x.flatten(1, -2) if x.ndim > 2 else x.unsqueeze(1), self.bias, x.shape[1:-1])

    def _product(self, rows: Tensor, bias: Tensor | None, between: Sequence[int]) -> Tensor:
        y = product(self.operand, rows, bias, tiles=self.tiles)
        return y.reshape(len(self.members), *between, y.shape[-1])

    def _apply(self, fn: Any, recurse: bool = True) -> EnsembleLinear:
        """The members move with the module; their dtype is their own."""
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        device = self.member.device
        self.family, self.operand = map_tensors((self.family, self.operand), lambda tensor: tensor.to(device))
        return self

    def extra_repr(self) -> str:
        """Shape, members and form."""
        outputs, inputs = self.family.shape
        return f"in_features={inputs}, out_features={outputs}, members={len(self.members)}, form={self.form}"


class _Product(torch.autograd.Function):
    """The layer's product, with its rule for vmap."""

    @staticmethod
    def forward(x: Tensor, bias: Tensor | None, member: Tensor, layer: EnsembleLinear) -> Tensor:
        return layer._product(x.reshape(-1, x.shape[-1]), bias, x.shape[:-1])

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        pass

    @staticmethod
    def vmap(info: Any, in_dims: Any, x: Tensor, bias: Tensor | None, member: Tensor, layer: EnsembleLinear) -> Any:
        count = len(layer.members)
        if in_dims[2] is None or info.batch_size != count:
            raise ValueError(
                f"a layer of {count} members runs under vmap over these {count} members, with its buffer `member` "
                f"batched; got vmap over {info.batch_size}{'' if in_dims[2] is not None else ' of something else'}"
            )
        own = bias if bias is None or in_dims[1] is None else bias.movedim(in_dims[1], 0)
        if in_dims[0] is None:
            return layer._product(x.reshape(-1, x.shape[-1]), own, x.shape[:-1]), 0
        x = x.movedim(in_dims[0], 0)
        return layer._product(x.reshape(count, -1, x.shape[-1]), own, x.shape[1:-1]), 0


def ensemble_linear(
    model: nn.Module, ensemble: Ensemble, *, form: Form = "planes", tiles: Tiles | None = None
) -> tuple[nn.Module, Ensemble]:
    """A copy of the model whose linear layers hold all members, and the ensemble of what is left.

    `predict(*ensemble_linear(model, ensemble), batches, backend="vmap", block=len(ensemble))` gives their outputs.
    Layers stay as they are where weights are tied, are no integers over a shared floor, or are read by a module around
    them. Raises ValueError where no layer is left.
    """
    twin = working_copy(model)
    _, rest = swap(twin, ensemble, form=form, tiles=tiles)
    return twin, rest


def swap(
    twin: nn.Module, ensemble: Ensemble, *, form: Form = "planes", tiles: Tiles | None = None
) -> tuple[list[EnsembleLinear], Ensemble]:
    """Put layers for all members into `twin`, in place: these layers, and the ensemble without their weights."""
    families, layers, why = dict(ensemble.families), [], "it has no linear layers"
    device, rows = place(twin), Stacked(torch.arange(len(ensemble)), ensemble.members)
    for name, module in _linear(twin):
        family = families.get(f"{name}.weight")
        reason = "its weight is tied" if _tied(families, family) else None if family is None else unfit(family)
        if family is None or reason is not None:
            why = f"layer {name!r}: {reason or 'the ensemble has no weight for it'}"
            continue
        own = map_tensors(family, lambda tensor: tensor.to(device))
        layer = EnsembleLinear(own, ensemble.members, bias=module.bias, form=form, tiles=tiles).eval()
        twin.set_submodule(name, layer)
        layers.append(layer)
        del families[f"{name}.weight"]
        families[f"{name}.member"] = rows
    if not layers:
        raise ValueError(f"no linear layer of the network can hold several members; the last one tried: {why}")
    return layers, Ensemble(families, ensemble.members, ensemble.weights)


def in_tiles(twin: nn.Module, ensemble: Ensemble) -> Callable[[Sequence[int], Sequence[Any], Any], Tensor]:
    """Like `side_by_side`, with linear layers for the members of a block."""
    layers, rest = swap(twin, ensemble)
    inner = side_by_side(twin, rest)

    def run(members: Sequence[int], each: Sequence[Any], output: Callable[[Any], Tensor]) -> Tensor:
        for layer in layers:
            layer.load(members)
        return inner(members, each, output)

    return run


def _linear(model: nn.Module) -> list[tuple[str, nn.Linear]]:
    """Linear layers proper, by name: subclasses may use their weight in another way, and so may modules around them."""
    read = {id(inner) for outer in model.modules() if isinstance(outer, READERS) for inner in outer.modules()}
    found = [(name, module) for name, module in model.named_modules() if type(module) is nn.Linear and name]
    return [(name, module) for name, module in found if id(module) not in read]


def _tied(families: dict[str, Family], family: Family | None) -> bool:
    return sum(other is family for other in families.values()) > 1
