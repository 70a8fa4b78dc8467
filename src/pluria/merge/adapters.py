"""Adapters in weight space: added to a base, as an ensemble, summed exactly at low rank, read off a difference.

    add       W + sum_k w_k s_k B_k A_k
    sum       [w_1 s_1 B_1 | w_2 s_2 B_2 ...] [A_1; A_2 ...] = Q_B (R_B R_A^T) Q_A^T, and the SVD of the small core
    extract   the SVD of  tuned - base

Sums are of products, never of the factors apart: (sum B_k)(sum A_k) has cross terms B_i A_j that no adapter asked for.
Source of the adapters: Hu et al., "LoRA", ICLR 2022; that a truncated SVD is nearest: Eckart and Young, 1936.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import torch
from torch import Tensor

from pluria.core.adapter import Adapter, LowRank
from pluria.core.ensemble import UNIFORM, Ensemble
from pluria.core.factored import Factored, spread
from pluria.core.family import Family, Shared, block
from pluria.core.params import Params, check_fit, memory
from pluria.numbers.narrow import narrowed


def add_adapters(
    params: Params, adapters: Sequence[Adapter], weights: Sequence[float] | None = None
) -> dict[str, Tensor]:
    """The base with weighted adapters added, in float64, rounded once.

    weights   one for each adapter, of any sign and sum; None: one each

    Tied names stay tied, and what is added to one of them is added to all. Raises ValueError for names or shapes that
    the base does not have, and for another number of weights.

    >>> one = {"w": LowRank(torch.tensor([[1.0]]), torch.tensor([[2.0, 3.0]]))}
    >>> add_adapters({"w": torch.ones(1, 2)}, [one, one], [1.0, -0.5])
    {'w': tensor([[2.0000, 2.5000]])}
    """
    held, wide = dict(params), dict[Hashable, Tensor]()
    for adapter, weight in zip(adapters, _weights(adapters, weights), strict=True):
        for name, part in adapter.items():
            value = _fits(held, name, part)
            total = wide.setdefault(memory(value), value.detach().to(torch.float64))
            wide[memory(value)] = total + weight * part.product().view(spread(value.shape, part.right.shape[1]))
    own = {memory(value): value.detach() for value in held.values()}
    made = {at: narrowed(wide[at], value.dtype) if at in wide else value.clone() for at, value in own.items()}
    return {name: made[memory(value)] for name, value in held.items()}


def adapted(params: Params, adapters: Sequence[Adapter], weights: Tensor | None = None) -> Ensemble:
    """The ensemble whose members are the base with one adapter each; the base is held once.

    Adapters may have different ranks and names; factors are held as float32. So any rule merges adapters, `linear` is
    their average, and the same weights pool their outputs. Raises ValueError as `add_adapters` does.
    """
    if not adapters:
        raise ValueError("no adapters; give one or more")
    shared: dict[Hashable, Family] = {}
    families: dict[str, Family] = {}
    held = dict(params)
    for name, value in held.items():
        families[name] = shared.setdefault(memory(value), Shared(value.detach()))
    for name in dict.fromkeys(name for adapter in adapters for name in adapter):
        parts = [adapter.get(name) for adapter in adapters]
        shape = next((p.left.shape[0], p.right.shape[1]) for p in parts if p and _fits(held, name, p).shape)
        rank = max(part.rank for part in parts if part)
        left, right = torch.zeros(len(parts), shape[0], rank), torch.zeros(len(parts), rank, shape[1])
        for k, part in enumerate(parts):
            if part:
                left[k, :, : part.rank] = part.scale * part.left.detach().to(torch.float64)
                right[k, : part.rank] = part.right.detach()
        family = Factored(families[name], left, right, "add")
        families |= {n: family for n, value in held.items() if memory(value) == memory(held[name])}
    return Ensemble(families, tuple(range(len(adapters))), UNIFORM if weights is None else weights)


def adapters_of(ensemble: Ensemble) -> list[dict[str, LowRank]]:
    """The adapter that each member is, over the base they share: undoes `adapted`, and reads a trained LoRA population.

    Raises ValueError where members differ in what is no such product, as in a head of their own.
    """
    made: list[dict[str, LowRank]] = [{} for _ in ensemble.members]
    tied: set[int] = set()
    for name, family in ensemble.families.items():
        if id(family) in tied:
            continue
        tied.add(id(family))
        if isinstance(family, Factored) and family.op == "add" and isinstance(family.base, Shared):
            for adapter, member in zip(made, ensemble.members, strict=True):
                adapter[name] = LowRank(family.left[member], family.right[member])
        elif not isinstance(family, Shared) and not bool(
            (block(family, ensemble.members) == block(family, ensemble.members[:1])).all()
        ):
            raise ValueError(f"members differ in {name!r} by more than a product, and an adapter holds only products")
    return made


def sum_adapters(
    adapters: Sequence[Adapter], weights: Sequence[float] | None = None, *, rank: int | None = None
) -> dict[str, LowRank]:
    """One adapter that is the weighted sum of several, without a matrix of the weights' size.

    weights   one for each, of any sign and sum; None: one each
    rank      at most; None: what the sum needs, at most the sum of the ranks

    With `rank`, no adapter of that rank is nearer to the sum. The adapters may have different ranks and names. Factors
    have the dtype of the first ones. Raises ValueError for a rank below one, and for factors of different sizes.
    """
    shares = _weights(adapters, weights)
    made = {}
    for name in dict.fromkeys(name for adapter in adapters for name in adapter):
        parts = [(adapter[name], weight) for adapter, weight in zip(adapters, shares, strict=True) if name in adapter]
        if len({(part.left.shape[0], part.right.shape[1]) for part, _ in parts}) > 1:
            raise ValueError(
                f"tensor {name!r}: the adapters' products are of different shapes; give those of one network"
            )
        left = torch.cat([weight * part.scale * part.left.detach().to(torch.float64) for part, weight in parts], 1)
        right = torch.cat([part.right.detach().to(torch.float64) for part, _ in parts])
        (one, core_left), (other, core_right) = torch.linalg.qr(left), torch.linalg.qr(right.T)
        small = _truncated(core_left @ core_right.T, rank)
        made[name] = _as(LowRank(one @ small.left, small.right @ other.T), parts[0][0].left.dtype)
    return made


def extract_adapter(
    base: Params, tuned: Params, *, rank: int, names: Sequence[str] | None = None
) -> dict[str, LowRank]:
    """The adapter of a rank that is nearest to a fine-tune: exact where the difference has no larger rank.

    names   of the weights that are compared; None: all, and then nothing but matrices may differ

    Kernels of convolutions are matrices `[out, rest]`. Raises ValueError for a rank below one, and where a bias, a norm
    or a count differs, which no adapter can hold; CheckpointError for a fine-tune of another network.
    """
    made, chosen = {}, list(base if names is None else names)
    if unknown := [name for name in chosen if name not in base]:
        raise ValueError(f"the base has no {', '.join(unknown[:5])}; it has {', '.join(list(base)[:5])}, ...")
    check_fit({n: tuned[n] for n in chosen if n in tuned}, {n: base[n] for n in chosen}, what="the fine-tune")
    for name in chosen:
        if torch.equal(base[name], tuned[name]):
            continue
        if base[name].ndim < 2 or not base[name].is_floating_point():
            raise ValueError(
                f"tensor {name!r} {list(base[name].shape)} differs, and an adapter holds only matrices; "
                "name the weights to extract as `names`"
            )
        step = tuned[name].detach().to(torch.float64) - base[name].detach().to(torch.float64)
        made[name] = _as(_truncated(step.flatten(1), rank), base[name].dtype)
    return made


def _truncated(matrix: Tensor, rank: int | None) -> LowRank:
    """The nearest product of a rank, singular values shared between its factors; None: all that are not rounding."""
    if rank is not None and rank < 1:
        raise ValueError(f"a rank is one or more; got {rank}")
    left, values, right = torch.linalg.svd(matrix, full_matrices=False)
    needed = int((values > values[0] * max(matrix.shape) * torch.finfo(values.dtype).eps).sum())
    count = max(1, min(needed, len(values) if rank is None else rank))
    root = values[:count].sqrt()
    return LowRank(left[:, :count] * root, root[:, None] * right[:count])


def _as(part: LowRank, dtype: torch.dtype) -> LowRank:
    return LowRank(narrowed(part.left, dtype), narrowed(part.right, dtype), part.scale)


def _weights(adapters: Sequence[Adapter], weights: Sequence[float] | None) -> list[float]:
    if weights is None:
        return [1.0] * len(adapters)
    if len(weights) != len(adapters):
        raise ValueError(f"{len(adapters)} adapters need as many weights; got {len(weights)}")
    return [float(weight) for weight in weights]


def _fits(params: Params, name: str, part: LowRank) -> Tensor:
    """The base's tensor that a product is added to."""
    shape = (part.left.shape[0], part.right.shape[1])
    if name not in params:
        raise ValueError(
            f"the adapter changes {name!r}, which the base does not have; it has {', '.join(list(params)[:5])}, ..."
        )
    value = params[name]
    if value.ndim < 2 or shape[0] != value.shape[0] or shape[1] not in (value.shape[1], value[0].numel()):
        raise ValueError(f"tensor {name!r} has shape {tuple(value.shape)}, and its adapter's product {shape}")
    return value
