"""Low-precision ensembles: members drawn from one network by stochastic rounding onto a grid, with no training.

    w_m = s (floor(w / s) + 1[u_m < w / s - floor(w / s)]),  m = 1..K        p(y | x) = mean_m softmax f(w_m, x)

Source: Nam and Lee, "Ex Uno Pluria: Insights on Ensembling in Low Precision Number Systems", NeurIPS 2024.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from fnmatch import fnmatchcase

import torch
from torch import Tensor, nn

from pluria.core.ensemble import Ensemble, single
from pluria.core.errors import CheckpointError
from pluria.core.family import Family, Joined, Shared
from pluria.core.model import OTHER, ROUNDED, Role, guess_roles
from pluria.core.model import roles as roles_of
from pluria.core.params import Params, check_finite, copied
from pluria.core.rounded import Rounded, base_value
from pluria.numbers.coupling import COUPLINGS, Coupling
from pluria.numbers.format import Format, number_format
from pluria.numbers.grid import Granularity
from pluria.numbers.key import Key, refuse_collisions

Source = nn.Module | Params | Ensemble
Where = Sequence[str] | Callable[[str, Role], bool] | None
Formats = str | Format | Mapping[str, str | Format]


def low_precision(
    source: Source,
    *,
    format: Formats = "int5",
    members: int = 8,
    coupling: Coupling = "stratified",
    granularity: Granularity = "channel",
    where: Where = None,
    roles: Mapping[str, Role] | None = None,
    key: Key | int = 0,
    copy: bool = True,
) -> Ensemble:
    """Members of `source` by stochastic rounding; the first k members do not change as `members` grows.

    source       a model or its params (both copied, tied names stay tied), or an ensemble: then `members` in all, its
                 members rounded in turn, each draw with the mixing weight of its base
    format       a number system ("int2".."int8", "int4-asymmetric", "fp8-e4m3", "fp4-e2m1", "nf4", "bf16", ...), or a
                 mapping from name patterns to number systems, the first that matches (others stay in full precision)
    coupling     "stratified", "antithetic" or "independent" (the paper's)
    granularity  one scale per "channel" or "tensor", or per group of that many inputs
    where        name patterns ("features.*", "!*.head.weight" leaves out), or a function of name and role; by default
                 tensors with two or more axes of linear, conv and embedding layers; integers are passed over
    roles        what each tensor is for; read from the model, or guessed from names and shapes
    copy         False uses the tensors of a model or its params as they are, so a large model is held once; they must
                 not be changed afterwards

    Raises ValueError for a bad option, TypeError for another source (a path), CheckpointError for NaN, Inf or a
    checkpoint that is quantised already.
    """
    if coupling not in COUPLINGS:
        raise ValueError(f"a coupling is one of {', '.join(COUPLINGS)}; got {coupling!r}")
    return _rounded(source, format, members, coupling, granularity, where, roles, key, copy)


def nearest(
    source: Source,
    *,
    format: Formats = "int5",
    granularity: Granularity = "channel",
    where: Where = None,
    roles: Mapping[str, Role] | None = None,
    copy: bool = True,
) -> Ensemble:
    """The one model nearest to `source` on the grid (each member's, for an ensemble): the control at equal bits."""
    members = len(source) if isinstance(source, Ensemble) else 1
    return _rounded(source, format, members, None, granularity, where, roles, Key(0), copy)


def _rounded(
    source: Source,
    format: Formats,
    members: int,
    coupling: Coupling | None,
    granularity: Granularity,
    where: Where,
    given: Mapping[str, Role] | None,
    key: Key | int,
    copy: bool,
) -> Ensemble:
    if isinstance(members, bool) or not isinstance(members, int) or members < 1:
        raise ValueError(f"an ensemble has one member or more; got {members!r}")
    base, found = _base(source, copy)
    _check_granularity(granularity)
    found, key = {**found, **(given or {})}, key if isinstance(key, Key) else Key(key)
    _refuse_unmatched(base.families, where, format, given or {})
    made: dict[int, Family] = {}
    for name, family in base.families.items():
        role, system = found.get(name, OTHER), _format_of(format, name)
        wanted = id(family) not in made and system is not None and _selected(where, name, role, family.shape)
        if wanted and system is not None and _is_weight(name, role, family.dtype):
            place = role.layout(family.shape)
            made[id(family)] = Rounded(family, name, system, granularity, place, key, coupling, base.members)
    if not made:
        raise ValueError("nothing to round: no tensor with two or more axes is selected; name some by `where`")
    _fit(made.values())
    for family in base.families.values():
        made.setdefault(id(family), _in_turn(family, base.members, members))
    turns = [number % len(base) for number in range(members)]
    families = {name: made[id(family)] for name, family in base.families.items()}
    return Ensemble(families, tuple(range(members)), base.weights[turns])


def _base(source: Source, copy: bool) -> tuple[Ensemble, Mapping[str, Role]]:
    """The ensemble that is rounded, and the roles of its tensors."""
    if isinstance(source, Ensemble):
        for member in source.members:
            for name, family in source.families.items():  # one at a time: a member may be all that fits
                value = base_value(family, member)
                check_finite({name: value}, what=f"member {member} of the ensemble")
        return source, guess_roles(source.outline())
    held = source.state_dict(keep_vars=True) if isinstance(source, nn.Module) else _checked(source)
    # Copied, for the grids are fitted now: training on would move the weights from under them.
    params = copied(held) if copy else held
    check_finite(params)
    return single(params), roles_of(source) if isinstance(source, nn.Module) else guess_roles(params)


def _checked(source: object) -> Params:
    if not isinstance(source, Mapping):
        advice = "A checkpoint's file is read by `pluria.read_checkpoint(path).params`"
        raise TypeError(f"a source is a model, its params or an ensemble; got {type(source).__name__}. {advice}")
    for name, value in source.items():
        if not isinstance(value, Tensor):
            raise TypeError(f"params are named tensors; {name!r} is {type(value).__name__}. Give the state dict alone")
    return source


def _in_turn(family: Family, bases: tuple[int, ...], members: int) -> Family:
    """A family that is not rounded, its members taken in the same turn as the rounded ones."""
    if isinstance(family, Shared):
        return family
    return Joined((family,), (tuple(bases[i % len(bases)] for i in range(members)),))


def _fit(families: Iterable[Family]) -> None:
    """Fit every grid now, so that a bad group size or a NaN is met before any work."""
    rounded = [family for family in families if isinstance(family, Rounded)]
    refuse_collisions(family.name for family in rounded)
    for family in rounded:
        for turn in range(len(family.bases)):
            try:
                family.parts(turn)
            except ValueError as error:
                raise ValueError(f"tensor {family.name!r} of shape {tuple(family.shape)}: {error}") from None


def _format_of(format: Formats, name: str) -> Format | None:
    if not isinstance(format, Mapping):
        return number_format(format)
    system = next((system for pattern, system in format.items() if fnmatchcase(name, pattern)), None)
    return None if system is None else number_format(system)


def _check_granularity(granularity: Granularity) -> None:
    whole = isinstance(granularity, int) and not isinstance(granularity, bool)
    if not whole and granularity not in ("channel", "tensor"):
        raise ValueError(f"one scale per 'channel', per 'tensor', or per so many inputs; got {granularity!r}")


def _selected(where: Where, name: str, role: Role, shape: torch.Size) -> bool:
    if not shape or not shape.numel():
        return False
    if callable(where):
        return where(name, role)
    if where is None:
        return role.kind in ROUNDED and len(shape) >= 2
    wanted = [pattern for pattern in where if not pattern.startswith("!")]
    left_out = any(fnmatchcase(name, pattern[1:]) for pattern in where if pattern.startswith("!"))
    inside = any(fnmatchcase(name, p) for p in wanted) if wanted else role.kind in ROUNDED
    return inside and not left_out and len(shape) >= 2


def _refuse_unmatched(names: Iterable[str], where: Where, format: Formats, given: Mapping[str, Role]) -> None:
    """A pattern or name that fits no tensor is a slip of the pen: it would silently round too much or too little."""
    if isinstance(where, str):
        raise TypeError(f"`where` is a list of name patterns; got the string {where!r}. Write [{where!r}]")
    patterns = [] if where is None or callable(where) else [pattern.removeprefix("!") for pattern in where]
    known = list(names)
    for pattern in [*patterns, *(format if isinstance(format, Mapping) else ()), *given]:
        if not any(fnmatchcase(name, pattern) for name in known):
            raise ValueError(f"{pattern!r} fits no tensor of the network; there are {', '.join(known[:5])}, ...")


def _is_weight(name: str, role: Role, dtype: torch.dtype) -> bool:
    """Whether a selected tensor is one to round: integers that a pattern happens to fit (positions, masks) are not."""
    packed = dtype in (torch.int8, torch.uint8) or (dtype.is_floating_point and dtype.itemsize == 1)
    if packed or (role.kind in ROUNDED and not dtype.is_floating_point):
        raise CheckpointError(
            f"tensor {name!r} holds {dtype}: this checkpoint is quantised already, and rounding it again would "
            "not be unbiased. Give the checkpoint in float32, bfloat16 or float16 that it was made from"
        )
    return dtype.is_floating_point
