"""The ways to run members: each makes a working copy and a function that runs members on it.

    loop            one working copy, members written into it in place: the reference
    channels_last   the same in channels-last order, codes and scales apart, batch norm folded
    bfloat16        that in bfloat16: exact codes, 16-bit activations
    compiled        that under torch.compile
    int8            bfloat16, but linear layers and 2-d convolutions as int8 products of rounded activations
    vmap            the members of a block side by side
    triton          vmap, with linear layers that read their weights once, for GPUs

What a way cannot do with a network shows when it runs: `choose.py` looks, and takes the loop.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from pluria.core.calling import call, moved
from pluria.core.ensemble import Ensemble
from pluria.core.family import Family, Shared
from pluria.core.model import tensors, working_copy
from pluria.core.params import memory
from pluria.core.rounded import Rounded
from pluria.numbers.threads import together
from pluria.predict.endings import Endings
from pluria.predict.fold import NORMS, graph_of
from pluria.predict.images import images
from pluria.predict.linear import in_tiles
from pluria.predict.pieces import in_pieces
from pluria.predict.rows import by_rows
from pluria.predict.scaled import Layers, Scaled, Writer, scaled
from pluria.predict.vmap import side_by_side
from pluria.predict.whole import whole

Name = Literal["loop", "channels_last", "bfloat16", "compiled", "int8", "vmap", "triton"]
NAMES: tuple[Name, ...] = ("loop", "channels_last", "bfloat16", "compiled", "int8", "vmap", "triton")
PLAIN = ("loop", "vmap", "triton")
"""Ways that take the caller's dtype and memory order."""

LAYERS: dict[Name, Layers] = {"bfloat16": images, "int8": whole}
"""Layers of their own kind, by the way that has them."""

NOTED = 2**28
"""Rounded weights of a network whose members are noted: half a gigabyte. Of more, memory is dearer than time."""

Run = Callable[[Sequence[int], Sequence[Any], Callable[[Any], Tensor]], Tensor]
"""(members, the inputs each member sees, output) -> [k, n, ...]"""


@dataclass(frozen=True)
class Storage:
    """Where and how the working copy is kept; what a plain loop and `vmap` take from the caller."""

    device: torch.device
    dtype: torch.dtype | None
    channels_last: bool = False


def backend(name: Name, model: nn.Module, ensemble: Ensemble, storage: Storage, *, batch: int | None = None) -> Run:
    """A function that runs members in one of the ways; `batch` examples at a time, all of a batch if None."""
    ensemble = noted(ensemble)
    if name in PLAIN:
        twin = working_copy(model, device=storage.device, dtype=storage.dtype, channels_last=storage.channels_last)
        if name != "loop":
            return (side_by_side if name == "vmap" else in_tiles)(twin, ensemble)
        return _one_by_one(twin, _plain(twin, ensemble, tensors(twin)), batch)
    dtype = torch.float32 if name == "channels_last" else torch.bfloat16
    twin, called, writers = _fast(model, ensemble, storage.device, dtype, LAYERS.get(name), name != "compiled")
    if name == "compiled":
        called = torch.compile(twin, dynamic=False)
    return _one_by_one(twin, writers, batch, cast=dtype, called=called)


def noted(ensemble: Ensemble) -> Ensemble:
    """The same members; what those of one base share is noted as they are written, where that is not too much."""
    apart = {id(family): family for family in ensemble.families.values() if isinstance(family, Rounded)}
    made: dict[int, Family] = {key: found for key, family in apart.items() if (found := family.noted()) is not family}
    if sum(family.shape.numel() for family in made.values()) > NOTED:
        return ensemble
    return ensemble.with_families({n: made.get(id(f), f) for n, f in ensemble.families.items()})


def floating(model: nn.Module) -> torch.dtype | None:
    """The floating dtype of the model's parameters, None where they have none or several."""
    found = {value.dtype for value in model.parameters() if value.is_floating_point()}
    return found.pop() if len(found) == 1 else None


def _fast(
    model: nn.Module, ensemble: Ensemble, device: torch.device, dtype: torch.dtype, layers: Layers | None, drawn: bool
) -> tuple[nn.Module, Callable[..., Any], list[Writer]]:
    """A channels-last working copy with exact codes, a call of it, and what writes a member into it.

    `drawn`: embeddings by rows.
    """
    twin = working_copy(model, device=device, dtype=dtype, channels_last=True)
    for module in twin.modules():
        if isinstance(module, NORMS):
            module.float()  # 16-bit statistics would be worse than what is normalised by them
    own, graph, endings = dict(tensors(twin)), graph_of(twin), Endings()
    for name in graph.relus:
        twin.get_submodule(name).inplace = True  # type: ignore[assignment]
    writers, served = scaled(twin, ensemble, graph, layers=layers, endings=endings)
    some, tables = by_rows(twin, ensemble) if drawn else ([], set())
    rest = {name: value for name, value in own.items() if name not in served | tables}
    return twin, endings.around(twin), writers + some + _plain(twin, ensemble, rest)


def _plain(twin: nn.Module, ensemble: Ensemble, own: Mapping[str, Tensor]) -> list[Writer]:
    """Writers of tensors as they are; parameters that all members share are written once, at once."""
    parameters: set[int] = {id(value) for value in twin.parameters()}
    distinct: dict[Hashable, str] = {}
    for name in ensemble.families:
        if name in own:
            distinct.setdefault(memory(own[name]), name)
    fixed = {n for n in distinct.values() if isinstance(ensemble.families[n], Shared) and id(own[n]) in parameters}
    with torch.no_grad():
        for name in fixed:
            ensemble.families[name].write(ensemble.members[0], own[name])
    varying = [(ensemble.families[name], own[name]) for name in distinct.values() if name not in fixed]
    rounded = [pair for pair in varying if isinstance(pair[0], Rounded)]
    others = [pair for pair in varying if not isinstance(pair[0], Rounded)]

    def write(member: int) -> None:
        with torch.no_grad():
            with together():
                for family, value in rounded:
                    family.write(member, value)
            for family, value in others:
                family.write(member, value)

    return [write]


def _one_by_one(
    twin: nn.Module,
    writers: Sequence[Writer],
    batch: int | None,
    *,
    cast: torch.dtype | None = None,
    called: Callable[..., Any] | None = None,
) -> Run:
    restore, model = _scratch(twin), twin if called is None else called
    held: list[int] = []

    def run(members: Sequence[int], each: Sequence[Any], output: Callable[[Any], Tensor]) -> Tensor:
        rows = []
        for member, x in zip(members, each, strict=True):
            if held != [member]:
                held.clear()  # what is broken off leaves no member behind
                for write in writers:
                    write(member)
                held[:] = [member]

            def forward(part: Any) -> Tensor:
                restore()
                return output(call(model, part)).to(torch.float32)

            rows.append(in_pieces(forward, x if cast is None else moved(x, None, cast, channels_last=True), batch))
        return torch.stack(rows)

    return run


def _scratch(twin: nn.Module) -> Callable[[], None]:
    """Puts buffers that no checkpoint holds (caches) back: no member, batch or block may see what another left."""
    kept = [
        (module, name, value.clone())
        for module in twin.modules()
        if not isinstance(module, Scaled)
        for name, value in module.named_buffers(recurse=False)
        if name in module._non_persistent_buffers_set
    ]

    def restore() -> None:
        for module, name, value in kept:
            setattr(module, name, value.clone())

    return restore
