"""Layers that hold exact codes: y = scale (x * codes) + shift, scale and shift one number for each output channel.

    w_c = s_c k_c    scale_c = s_c a_c    shift_c = a_c (b_c - mu_c) + beta_c    a_c = gamma_c / sqrt(var_c + eps)

Codes of at most eight bits are exact in bfloat16, so a member's weights keep every bit in a 16-bit network; only what
flows through it is rounded. a, mu, beta are those of the batch norm behind the layer, where it may be folded in.
Everything that is per channel is computed in float32.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pluria.core.coded import Coded
from pluria.core.ensemble import Ensemble
from pluria.core.family import Family, Joined, Shared
from pluria.core.model import ties
from pluria.core.rounded import Rounded
from pluria.numbers.format import Integer, Minifloat
from pluria.numbers.grid import Grid
from pluria.numbers.threads import together
from pluria.predict.endings import Endings
from pluria.predict.fold import Ending, Graph

FUSED = (nn.MultiheadAttention, nn.TransformerEncoderLayer, nn.TransformerDecoderLayer)
"""Torch's own layers that read their parts' weights without calling them."""


class Scaled(nn.Module):
    """A convolution or linear layer with codes for weights. It shares the layer's storage for them."""

    scale: Tensor
    shift: Tensor
    zeros: Tensor
    ones: Tensor

    def __init__(self, layer: nn.Conv1d | nn.Conv2d | nn.Conv3d | nn.Linear) -> None:
        super().__init__()
        self.layer, channels = layer, layer.weight.shape[0]
        layer.bias = None
        for name, value in (("scale", 1.0), ("shift", 0.0), ("zeros", 0.0), ("ones", 1.0)):
            held = torch.full((channels,), value, device=layer.weight.device)
            self.register_buffer(name, held, persistent=False)

    def renew(self) -> None:
        """Another member's codes are in the layer."""

    def spread_by(self, scale: Tensor, shift: Tensor) -> None:
        """Take another scale and shift, which most members of one network share."""
        self.scale.copy_(scale)
        self.shift.copy_(shift)

    def wait(self, ending: Ending, endings: Endings) -> None:
        """Leave scale and shift to what stands behind the layer, where it can wait and something does."""

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.layer(x)
        if isinstance(self.layer, nn.Linear):
            return self._spread(y.view(-1, y.shape[-1])).view(y.shape)
        if y.ndim < self.layer.weight.ndim:  # one example, without an axis for them
            return self._spread(y.unsqueeze(0)).squeeze(0)
        return self._spread(y)

    def _spread(self, y: Tensor) -> Tensor:
        """scale y + shift in one pass, in float32 whatever y is: a batch norm with nothing to subtract."""
        if torch.compiler.is_compiling():
            return F.batch_norm(y, self.zeros, self.ones, self.scale, self.shift, eps=0.0)
        out = (y, self.zeros[:0], self.zeros[:0])
        torch.native_batch_norm(y, self.scale, self.shift, self.zeros, self.ones, False, 0.0, 0.0, out=out)
        return y


Writer = Callable[[int], None]
"""Writes what a member has of its own."""

Channels = Callable[[int, Grid], None]
"""Writes what a member has for each channel, its grid given."""


Layers = Callable[[nn.Module, Family], Scaled]


def scaled(
    twin: nn.Module, ensemble: Ensemble, graph: Graph, *, layers: Layers | None = None, endings: Endings | None = None
) -> tuple[list[Writer], set[str]]:
    """Put `Scaled` layers into `twin`, one for each layer whose members have codes: what writes them, and names served.

    `layers` makes another layer where it wants to.
    A batch norm that the graph says a layer can take into itself becomes an identity; a sum or a ReLU stays, and is
    taken in where `endings` looks out for it.
    """
    found: list[tuple[Family, Scaled, Channels]] = []
    served = set()
    kinds = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)
    for name, layer in [(n, layer) for n, layer in alone(twin, kinds) if has_codes(ensemble.families[f"{n}.weight"])]:
        norm = graph.norms.get(name)
        behind = None if norm is None else twin.get_submodule(norm)
        made = Scaled(layer) if layers is None else layers(layer, ensemble.families[f"{name}.weight"])
        channels = _channels(made, ensemble, name, norm, getattr(behind, "eps", 0.0))
        found.append((ensemble.families[f"{name}.weight"], made, channels))
        served |= {full for full in (f"{name}.weight", f"{name}.bias") if full in ensemble.families}
        put(twin, name, made)
        if norm is not None:
            served |= {full for full in ensemble.families if full.rpartition(".")[0] == norm}
            put(twin, norm, nn.Identity())
        if endings is not None:
            made.wait(graph.endings.get(name, ()), endings)

    def write(member: int) -> None:
        with together():
            grids = [_codes(family, member, made.layer.weight) for family, made, _ in found]
        for (_, made, channels), grid in zip(found, grids, strict=True):
            made.renew()
            channels(member, grid)

    return [write], served


def alone(twin: nn.Module, kinds: tuple[type[nn.Module], ...]) -> list[tuple[str, Any]]:
    """Modules of these kinds by name that are called, and stand in one place with tensors of their own."""
    tied = ties(twin)
    shared = {first for name, first in tied.items() if name != first} | {n for n, first in tied.items() if n != first}
    hidden = {id(part) for module in twin.modules() if isinstance(module, FUSED) for part in module.modules()}
    found = []
    for name, module in twin.named_modules():
        plain = type(module) in kinds and name and id(module) not in hidden
        hooked = plain and (module._forward_hooks or module._forward_pre_hooks)
        if plain and not hooked and f"{name}.weight" not in shared and f"{name}.bias" not in shared:
            found.append((name, module))
    return found


def has_codes(family: Family) -> bool:
    """Whether every member is a scale for each output channel times values that are exact in bfloat16."""
    if isinstance(family, Joined):
        return all(map(has_codes, family.parts))
    if not isinstance(family, Rounded | Coded):
        return False
    grid = family.grid(0)
    exact = isinstance(grid.format, Integer | Minifloat) and grid.format.bits <= 8
    return exact and (grid.scale.numel() == 1 or grid.scale.shape == (family.shape[0], 1))


def _codes(family: Family, member: int, out: Tensor) -> Grid:
    if isinstance(family, Joined):
        part, own = family.place(member)
        return _codes(family.parts[part], own, out)
    assert isinstance(family, Rounded | Coded)
    return family.write_codes(member, out)


def _channels(made: Scaled, ensemble: Ensemble, name: str, norm: str | None, eps: float) -> Channels:
    families = ensemble.families
    bias = families.get(f"{name}.bias")
    behind = [] if norm is None else [n for n in families if n.rpartition(".")[0] == norm]
    around = {n.rpartition(".")[2]: families[n] for n in behind}
    small = [family for family in (bias, *around.values()) if family is not None]
    fixed = all(isinstance(family, Shared) for family in small)
    known: list[Grid] = []

    def write(member: int, grid: Grid) -> None:
        if fixed and known and known[0] is grid:
            return
        known.clear()  # what is broken off is done again
        scale, shift = _affine(member, bias, around, eps, like=made.scale)
        made.spread_by(grid.scale.view(-1) * scale, shift)
        known.append(grid)

    return write


def _affine(
    member: int, bias: Family | None, norm: dict[str, Family], eps: float, *, like: Tensor
) -> tuple[Tensor, Tensor]:
    """a and a (b - mu) + beta of one member, float64 on the CPU."""

    def of(family: Family | None, default: float) -> Tensor:
        held = torch.full(like.shape, default, dtype=torch.float64)
        if family is not None:
            family.write(member, held)
        return held

    if not norm:
        return torch.ones(like.shape, dtype=torch.float64), of(bias, 0.0)
    scale = of(norm.get("weight"), 1.0) / (of(norm["running_var"], 1.0) + eps).sqrt()
    return scale, scale * (of(bias, 0.0) - of(norm["running_mean"], 0.0)) + of(norm.get("bias"), 0.0)


def put(twin: nn.Module, name: str, module: nn.Module) -> None:
    """Put a module in the place of the one of that name."""
    parent, _, own = name.rpartition(".")
    setattr(twin.get_submodule(parent), own, module)
