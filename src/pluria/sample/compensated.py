"""Error-compensated stochastic rounding: members whose later weights make up for what rounding did to earlier ones.

    H = E[x x^T] of a layer's inputs, damped          min over q of E |(w_m - w) x|^2, greedily, column by column
    v_j = (w_j + feedback of the columns before) / s          q_j = s clip(floor(v_j) + 1[u_m < v_j - floor(v_j)])

Members keep E[w_m] = w where nothing clips, and disturb the layer's outputs about half as much as plain rounding.
With nearest rounding in place of stochastic it is GPTQ (Frantar et al., ICLR 2023), one model. See `feedback.py`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from pluria.core.coded import Coded, keep_codes
from pluria.core.ensemble import Ensemble
from pluria.core.family import Family
from pluria.core.rounded import Rounded
from pluria.numbers.coupling import Coupling
from pluria.numbers.format import Integer
from pluria.numbers.grid import Granularity, Grid
from pluria.numbers.key import Key
from pluria.numbers.rounding import Address, uniforms_at
from pluria.sample.feedback import Columns, factor, round_columns
from pluria.sample.moments import Moments, moments
from pluria.sample.rounding import Formats, Where, low_precision, nearest

Order = Literal["given", "falling"]
CHUNK = 2**22
"""Random words made at a time."""


def compensated(
    model: nn.Module,
    inputs: Moments | Iterable[Any],
    *,
    format: Formats = "int4",
    members: int = 8,
    coupling: Coupling = "stratified",
    granularity: Granularity = "channel",
    order: Order = "given",
    damping: float = 0.01,
    where: Where = None,
    key: Key | int = 0,
) -> Ensemble:
    """Members of `model` by stochastic rounding with error feedback, kept as codes of their own.

    inputs   unlabelled batches (a few hundred examples serve), or what `moments` read from them
    format   integers, "int2".."int8" or "int4-asymmetric" and so on; or a mapping from name patterns to them
    order    columns are rounded as they are "given", or in "falling" order of their inputs' mean square
    damping  what is added to the moments' diagonal, in units of its mean

    All else as in `low_precision`, which rounds the same tensors with the same random words onto the same grids: where
    the moments are diagonal the members are equal bit for bit. Tensors without moments (see `moments`), and layers
    whose inputs are all zero, are rounded plainly. An output layer tied to an embedding is compensated as an output.

    The first k members do not change as `members` grows. The same key gives the same bits on one machine with one
    number of threads; on another, sums of floats may decide otherwise, so store what has to stay. Raises ValueError
    for a bad option, for moments that do not fit the model, or that are not positive definite after damping.
    """
    _check(model, order, damping)
    options = {"format": format, "granularity": granularity, "where": where}
    plain = low_precision(model, members=members, coupling=coupling, key=key, **options)  # type: ignore[arg-type]
    return _with_feedback(plain, model, inputs, order, damping)


def gptq(
    model: nn.Module,
    inputs: Moments | Iterable[Any],
    *,
    format: Formats = "int4",
    granularity: Granularity = "channel",
    order: Order = "given",
    damping: float = 0.01,
    where: Where = None,
) -> Ensemble:
    """The one model by nearest rounding with error feedback: the control at equal bits. Options as in `compensated`."""
    _check(model, order, damping)
    plain = nearest(model, format=format, granularity=granularity, where=where)
    return _with_feedback(plain, model, inputs, order, damping)


def _check(model: object, order: str, damping: float) -> None:
    if not isinstance(model, nn.Module):
        raise TypeError(f"feedback needs the model that is run on the inputs; got {type(model).__name__}")
    if order not in get_args(Order):
        raise ValueError(f"an order is one of {', '.join(get_args(Order))}; got {order!r}")
    if isinstance(damping, bool) or not 0 <= damping < math.inf:
        raise ValueError(f"damping is zero or more, in units of the mean diagonal; got {damping!r}")


def _with_feedback(
    plain: Ensemble, model: nn.Module, inputs: Moments | Iterable[Any], order: Order, damping: float
) -> Ensemble:
    """The plainly rounded ensemble with its families that have moments rounded again, with feedback."""
    rounded = {f.name: f for f in plain.families.values() if isinstance(f, Rounded)}
    for name, family in rounded.items():
        if not isinstance(family.format, Integer):
            raise ValueError(f"tensor {name!r}: feedback needs integers, int2 to int8; got {family.format.name}")
    found = inputs if isinstance(inputs, Moments) else moments(model, inputs)
    if not any(name in found.second for name in rounded):
        raise ValueError("no tensor that is rounded has moments, so there is nothing to compensate; see `moments`")
    made: dict[int, Family] = {}
    for name, family in rounded.items():
        second = found.second.get(name)
        if second is None or not bool(second.any()):
            continue
        if found.layouts[name] != family.layout:
            raise ValueError(f"tensor {name!r}: moments of {found.layouts[name]} do not fit {family.layout}")
        made[id(family)] = _coded(family, second, plain.members, order, damping)
    return plain.with_families({name: made.get(id(f), f) for name, f in plain.families.items()})


def _coded(family: Rounded, second: Tensor, members: tuple[int, ...], order: Order, damping: float) -> Coded:
    value, grid = family.parts(0)
    second = second.to(value.device)
    at = _order(second, order)
    sorted_ = second.gather(1, at.unsqueeze(2).expand_as(second)).gather(2, at.unsqueeze(1).expand_as(second))
    feedback = factor(sorted_, damping)
    if feedback is None:
        layer = family.name.removesuffix(".weight")
        raise ValueError(
            f"the inputs of layer {layer!r} have moments that are not positive definite at damping {damping}. "
            "Give more inputs, or a larger damping"
        )
    columns = _columns(family, value, grid, feedback, at)
    rows, clipped = [], 0
    for member in members:
        codes, beyond = round_columns(columns, _uniforms(family, family.address(member), at))
        rows.append(_flat(family, codes, at))
        clipped += beyond
    return keep_codes(rows, grid, family, clipped=clipped / (len(members) * family.layout.numel))


def _order(second: Tensor, order: Order) -> Tensor:
    """The place of the column that is rounded j-th, int64 `[blocks, d]`."""
    blocks, size, _ = second.shape
    if order == "given":
        return torch.arange(size, device=second.device).expand(blocks, size)
    return second.diagonal(dim1=-2, dim2=-1).argsort(dim=-1, descending=True, stable=True)


def _columns(family: Rounded, value: Tensor, grid: Grid, feedback: Tensor, at: Tensor) -> Columns:
    assert isinstance(grid.format, Integer)
    blocks = len(at)

    def groups(table: Tensor) -> Tensor:
        whole = table.expand(family.layout.rows, -1) if grid.layout != family.layout else table
        return whole.reshape(blocks, -1, whole.shape[1]).mT.contiguous()

    zero = None if grid.zero is None else groups(grid.zero)
    group = at // grid.group if grid.layout == family.layout else torch.zeros_like(at)
    return Columns(grid.format, _sorted(family, value, at), feedback, groups(grid.scale), zero, group)


def _sorted(family: Rounded, value: Tensor, at: Tensor) -> Tensor:
    """A tensor of the family's shape as float32 columns `[blocks, d, rows]` in the order of rounding."""
    rows = family.layout.to_rows(value.detach()).to(torch.float32)
    columns = rows.reshape(len(at), -1, rows.shape[1]).mT
    return columns.gather(1, at.unsqueeze(2).expand_as(columns))


def _flat(family: Rounded, codes: Tensor, at: Tensor) -> Tensor:
    """Codes in the tensor's own order: the inverse of `_sorted`."""
    columns = torch.empty_like(codes).scatter_(1, at.unsqueeze(2).expand_as(codes), codes)
    return family.layout.from_rows(columns.mT.flatten(0, 1), family.shape).reshape(-1)


def _uniforms(family: Rounded, address: Address | None, at: Tensor) -> Tensor | None:
    """The uniforms that plain rounding gives the member, as columns in the order of rounding."""
    if address is None:
        return None
    count, parts = family.layout.numel, []
    for start in range(0, count, CHUNK):
        parts.append(uniforms_at(address, start, min(start + CHUNK, count), at.device))
    return _sorted(family, torch.cat(parts).view(family.shape), at)
