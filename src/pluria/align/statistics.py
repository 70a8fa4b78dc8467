"""Batch-norm statistics of members that share all their weights, put together as if one network had seen all batches.

    n = sum_k n_k      mu = sum_k n_k mu_k / n      var = sum_k n_k (var_k + (mu_k - mu)^2) / n

That is the law of total variance. It holds where the inputs of the members are mixed and the weights below are shared:
one network whose statistics were kept for each domain. After weights were averaged it does not (the true variance is
smaller), and `refresh` is the remedy. Deeper statistics are exact as far as those below them agree.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from pluria.align.refresh import NORMS
from pluria.core.ensemble import Ensemble
from pluria.core.model import tensors
from pluria.core.params import Params, check_fit
from pluria.numbers.narrow import narrowed


def pooled_statistics(
    model: nn.Module, ensemble: Ensemble, *, counts: Sequence[float] | None = None
) -> dict[str, Tensor]:
    """Params of one network whose running statistics are those of all members' inputs together.

    counts   how many inputs each member's statistics are of; by default the batches that each batch norm has counted,
             which is biased where batches differ in size

    Counts of batches are added. Raises ValueError where members differ in anything but these statistics, where the
    model has none, and where counts are not positive.
    """
    check_fit(ensemble.outline(), tensors(model), what="the ensemble")
    members = [ensemble.params(member) for member in ensemble.members]
    norms = [name for name, module in model.named_modules() if isinstance(module, NORMS) and module.track_running_stats]
    prefixes = [f"{name}." if name else "" for name in norms]
    own = {prefix + part for prefix in prefixes for part in ("running_mean", "running_var", "num_batches_tracked")}
    if not norms:
        raise ValueError("the model has no batch norm with running statistics")
    for name, value in members[0].items():
        if name not in own and not all(torch.equal(value, other[name]) for other in members[1:]):
            raise ValueError(
                f"members differ in {name!r}: their statistics are of other weights, so they cannot be put together. "
                "Merge the weights and refresh the statistics with `refresh`"
            )
    merged = dict(members[0])
    for prefix in prefixes:
        merged |= _together(prefix, members, counts)
    return merged


def _together(prefix: str, members: Sequence[Params], counts: Sequence[float] | None) -> dict[str, Tensor]:
    tracked = [member[f"{prefix}num_batches_tracked"] for member in members]
    shares = _shares([float(count) for count in tracked] if counts is None else counts, len(members), prefix)
    means, variances = (
        torch.stack([member[prefix + part].double() for member in members]) for part in ("running_mean", "running_var")
    )
    mean = shares @ means
    spread = shares @ (variances + (means - mean).square())
    first = members[0]
    return {
        f"{prefix}running_mean": narrowed(mean, first[f"{prefix}running_mean"].dtype),
        f"{prefix}running_var": narrowed(spread, first[f"{prefix}running_var"].dtype),
        f"{prefix}num_batches_tracked": torch.stack(tracked).sum(0),
    }


def _shares(counts: Sequence[float], members: int, prefix: str) -> Tensor:
    found = torch.tensor(list(counts), dtype=torch.float64)
    if found.shape != (members,) or not bool(torch.isfinite(found).all() and (found > 0).all()):
        wanted = f"counts are {members} positive numbers, one for each member"
        raise ValueError(f"batch norm {prefix.rstrip('.')!r}: {wanted}; got {list(counts)}")
    return found / found.sum()
