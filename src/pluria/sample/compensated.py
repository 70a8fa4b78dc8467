"""Error-compensated stochastic rounding: members whose later weights make up for what rounding did to earlier ones.

    H = E[x x^T] of a layer's inputs, damped          min over q of E |(w_m - w) x|^2, greedily, column by column
    v_j = (w_j + feedback of the columns before) / s          q_j = s clip(floor(v_j) + 1[u_m < v_j - floor(v_j)])

Members keep E[w_m] = w where nothing clips, and disturb the layer's outputs about half as much as plain rounding.
With nearest rounding in place of stochastic it is GPTQ (Frantar et al., ICLR 2023), one model. See `feedback.py`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
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
from pluria.sample.sequential import Follower, walk

Order = Literal["given", "falling"]
Follow = Literal["model", "reference", "member"]
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
    follow: Follow = "model",
    where: Where = None,
    key: Key | int = 0,
    copy: bool = True,
) -> Ensemble:
    """Members of `model` by stochastic rounding with error feedback, kept as codes of their own.

    inputs   unlabelled batches (a few hundred examples serve), or what `moments` read from them
    format   integers, "int2".."int8" or "int4-asymmetric" and so on; or a mapping from name patterns to them
    order    columns are rounded as they are "given", or in "falling" order of their inputs' mean square
    damping  what is added to the moments' diagonal, in units of its mean
    follow   whose layers give the inputs of those behind them: the "model" as it is; or block by block, with what runs
             before a block rounded: one "reference" for all members, rounded to the nearest with feedback, or each
             "member" itself (K times the work, and K times the activations). Moments of one block are held at a time

    All else as in `low_precision`, which rounds the same tensors with the same random words onto the same grids: where
    the moments are diagonal the members are equal bit for bit. Tensors without moments (see `moments`), and layers
    whose inputs are all zero, are rounded plainly. An output layer tied to an embedding is compensated as an output.

    The first k members do not change as `members` grows. The same key gives the same bits on one machine with one
    number of threads; on another, sums of floats may decide otherwise, so store what has to stay. Raises ValueError
    for a bad option, for moments that do not fit the model, or that are not positive definite after damping; and with
    `follow` for a model without blocks that run one after another.
    """
    _check(model, inputs, order, damping, follow)
    options = {"format": format, "granularity": granularity, "where": where, "copy": copy}
    plain = low_precision(model, members=members, coupling=coupling, key=key, **options)  # type: ignore[arg-type]
    return _with_feedback(plain, model, inputs, follow, order, damping)


def gptq(
    model: nn.Module,
    inputs: Moments | Iterable[Any],
    *,
    format: Formats = "int4",
    granularity: Granularity = "channel",
    order: Order = "given",
    damping: float = 0.01,
    follow: Follow = "model",
    where: Where = None,
    copy: bool = True,
) -> Ensemble:
    """The one model by nearest rounding with error feedback: the control at equal bits. Options as in `compensated`."""
    _check(model, inputs, order, damping, follow)
    plain = nearest(model, format=format, granularity=granularity, where=where, copy=copy)
    return _with_feedback(plain, model, inputs, follow, order, damping)


def _check(model: object, inputs: object, order: str, damping: float, follow: str) -> None:
    if not isinstance(model, nn.Module):
        raise TypeError(f"feedback needs the model that is run on the inputs; got {type(model).__name__}")
    if order not in get_args(Order):
        raise ValueError(f"an order is one of {', '.join(get_args(Order))}; got {order!r}")
    if isinstance(damping, bool) or not 0 <= damping < math.inf:
        raise ValueError(f"damping is zero or more, in units of the mean diagonal; got {damping!r}")
    if follow not in get_args(Follow):
        raise ValueError(f"layers follow one of {', '.join(get_args(Follow))}; got {follow!r}")
    if follow != "model" and isinstance(inputs, Moments):
        raise ValueError(f"follow={follow!r} takes moments of its own; give the batches in place of moments")


def _with_feedback(
    plain: Ensemble,
    model: nn.Module,
    inputs: Moments | Iterable[Any],
    follow: Follow,
    order: Order,
    damping: float,
) -> Ensemble:
    """The plainly rounded ensemble with its families that have moments rounded again, with feedback."""
    rounded = {f.name: f for f in plain.families.values() if isinstance(f, Rounded)}
    for name, family in rounded.items():
        if not isinstance(family.format, Integer):
            raise ValueError(f"tensor {name!r}: feedback needs integers, int2 to int8; got {family.format.name}")
    made: Mapping[str, Family]
    if isinstance(inputs, Moments) or follow == "model":
        made = _at_once(
            plain, rounded, inputs if isinstance(inputs, Moments) else moments(model, inputs), order, damping
        )
    else:
        made = _in_turn(plain, model, inputs, follow, order, damping)
    if not made:
        raise ValueError("no tensor that is rounded has moments, so there is nothing to compensate; see `moments`")
    known = {id(rounded[name]): family for name, family in made.items()}
    return plain.with_families({name: known.get(id(f), f) for name, f in plain.families.items()})


def _at_once(
    plain: Ensemble, rounded: Mapping[str, Rounded], found: Moments, order: Order, damping: float
) -> dict[str, Family]:
    """Families with feedback from moments of the model as it is."""
    made: dict[str, Family] = {}
    for name, family in rounded.items():
        second = found.second.get(name)
        if second is None:
            continue
        if found.layouts[name] != family.layout:
            raise ValueError(f"tensor {name!r}: moments of {found.layouts[name]} do not fit {family.layout}")
        if bool(second.any()):
            made[name] = _coded(family, _prepared(family, second, order, damping), plain.members)
        else:
            made[name] = family
    return made


def _in_turn(
    plain: Ensemble, model: nn.Module, inputs: Iterable[Any], follow: Follow, order: Order, damping: float
) -> dict[str, Family]:
    """Families with feedback from moments behind rounded layers: of one reference, or of each member for itself."""
    parts: dict[str, list[Coded]] = {}
    own = follow == "member"

    def visit(number: int, name: str, second: Tensor) -> Family | None:
        family = plain.families[name]
        if not isinstance(family, Rounded) or not bool(second.any()):
            return None
        ready = _prepared(family, second, order, damping)
        mine = _coded(family, ready, plain.members[number : number + 1] if own else plain.members)
        parts.setdefault(name, []).append(mine)
        return mine if own or family.coupling is None else _coded(replace(family, coupling=None), ready, (0,))

    closest = {n: replace(f, coupling=None) if isinstance(f, Rounded) else f for n, f in plain.families.items()}
    reference = [Follower(plain.with_families(closest), plain.members[0])]
    walk(model, inputs, [Follower(plain, member) for member in plain.members] if own else reference, visit)
    return {name: _end_to_end(found) for name, found in parts.items()}


@dataclass(frozen=True, eq=False)
class _Ready:
    """A weight, its grid and its feedback, in the order `at` of rounding."""

    columns: Columns
    grid: Grid
    at: Tensor


def _prepared(family: Rounded, second: Tensor, order: Order, damping: float) -> _Ready:
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
    return _Ready(_columns(family, value, grid, feedback, at), grid, at)


def _coded(family: Rounded, ready: _Ready, members: Sequence[int]) -> Coded:
    rows, clipped = [], 0
    for member in members:
        codes, beyond = round_columns(ready.columns, _uniforms(family, family.address(member), ready.at))
        rows.append(_flat(family, codes, ready.at))
        clipped += beyond
    return keep_codes(rows, ready.grid, family, clipped=clipped / (len(members) * family.layout.numel))


def _end_to_end(parts: Sequence[Coded]) -> Coded:
    """Members of several families on one grid."""
    clipped = sum(getattr(part, "clipped", None) or 0.0 for part in parts) / len(parts)
    return replace(parts[0], codes=torch.cat([part.codes for part in parts]), clipped=clipped)


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
