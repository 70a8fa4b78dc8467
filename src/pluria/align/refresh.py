"""Batch-norm statistics of rounded members, refreshed by difference from the network they were drawn from.

    mu  <- mu + (mu_member - mu_reference)        var <- var * var_member / var_reference

Both are run on the same unlabelled inputs with their batch statistics; where a member equals the reference nothing
changes, whatever the inputs. Plain re-estimation forgets that training saw augmented images, and hurts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from pluria.core.calling import Forward, call, check_batches, check_seen, moved, place
from pluria.core.ensemble import Ensemble
from pluria.core.family import Stacked
from pluria.core.model import tensors, ties, working_copy
from pluria.core.params import Params, check_fit, params_of

NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)


def has_batch_norm(model: nn.Module) -> bool:
    """Whether the model has running statistics to refresh."""
    return any(isinstance(module, NORMS) and module.track_running_stats for module in model.modules())


def refresh(
    model: nn.Module,
    ensemble: Ensemble,
    inputs: Iterable[Any],
    *,
    reference: Params | Ensemble | None = None,
    forward: Forward = call,
    plain: bool = False,
) -> Ensemble:
    """The ensemble with each member's running statistics refreshed on unlabelled batches of `inputs`.

    reference  params the statistics belong to; the model's own by default. An ensemble, where the members of one were
               rounded in turn: member i belongs to the i-th of its members, counted around
    forward    how the model is called with one batch; by default a tensor, a tuple of arguments or a dict of named
               ones. Inputs are moved to the model's device first
    plain      replace the statistics instead: right only where `inputs` come from the training pipeline

    Batches count by their values per channel. The refreshed statistics are kept for the present members: draw all
    members first. Raises ValueError where the model has no batch norm with running statistics, `inputs` is empty, a
    batch norm meets NaN or Inf, or a batch has one value per channel and so no variance; TypeError for one batch in
    place of several, for arrays that are no tensors, and for (inputs, targets).
    """
    check_batches(inputs)
    if not has_batch_norm(model):
        raise ValueError("the model has no batch norm with running statistics, so there is nothing to refresh")
    twin = working_copy(model)
    batches = [moved(batch, place(twin), None) for batch in inputs]
    own, rows = tensors(twin), dict[str, list[Tensor]]()
    check_fit(ensemble.outline(), own, what="the ensemble")
    with torch.no_grad():
        bases = [_based(twin, own, params, batches, forward) for params in _references(model, reference)]
        # A member that was taken twice has one row.
        distinct = tuple(dict.fromkeys(ensemble.members))
        for member in distinct:
            ensemble.write(member, own)
            now, (before, then) = _measure(twin, batches, forward), bases[member % len(bases)]
            for name, value in _refreshed(now, then, before, plain).items():
                rows.setdefault(name, []).append(value)
    stacked = {name: Stacked(torch.stack(values), distinct) for name, values in rows.items()}
    # A batch norm that stands in two places has two names, and is measured under the first.
    return ensemble.with_families({name: stacked[first] for name, first in ties(model).items() if first in stacked})


def _references(model: nn.Module, reference: Params | Ensemble | None) -> Iterator[Params]:
    if isinstance(reference, Ensemble):
        yield from reference
    else:
        yield params_of(model) if reference is None else reference


def _based(
    twin: nn.Module, own: Params, reference: Params, batches: list[Any], forward: Forward
) -> tuple[Params, dict[str, _Moments]]:
    """The running statistics of a reference, and what is measured in it."""
    check_fit(reference, own, what="the reference")
    for name in own.keys() & reference.keys():
        own[name].copy_(reference[name])
    kept = {name: value for name, value in reference.items() if name.endswith(("running_mean", "running_var"))}
    return kept, _measure(twin, batches, forward)


@dataclass
class _Moments:
    """Sums of batch means and unbiased variances of one batch norm's inputs, times their values per channel."""

    mean: Tensor
    var: Tensor
    count: int = 0


@dataclass
class _Found:
    """Moments by the names of the batch norms, and the number of the batch that is run."""

    batch: int = 0
    moments: dict[str, _Moments] = field(default_factory=dict)


def _measure(model: nn.Module, batches: list[Any], forward: Forward) -> dict[str, _Moments]:
    """Batch means and variances at each batch norm, all of them normalising by their batch.

    The model's own running statistics are left behind moved; the next member written puts them right.
    """
    if not batches:
        raise ValueError("no inputs to refresh the statistics on")
    found = _Found()
    norms = {n: m for n, m in model.named_modules() if isinstance(m, NORMS) and m.track_running_stats}
    hooks = [module.register_forward_pre_hook(_record(name, found)) for name, module in norms.items()]
    for module in norms.values():
        module.train()
    try:
        for found.batch, batch in enumerate(batches):
            forward(model, batch)
    finally:
        for hook in hooks:
            hook.remove()
        model.eval()
    return found.moments


def _record(name: str, found: _Found) -> Callable[[nn.Module, tuple[Any, ...]], None]:
    def hook(module: nn.Module, args: tuple[Any, ...]) -> None:
        x: Tensor = args[0].detach()
        check_seen(x, name, wanted="mean and variance")
        count, axes = x.numel() // x.shape[1], [axis for axis in range(x.ndim) if axis != 1]
        if count < 2:
            held = "one value" if count else "no value"
            raise ValueError(
                f"batch number {found.batch} has {held} per channel at batch norm {name!r}, inputs of shape "
                f"{tuple(x.shape)}, and so no variance. Give larger batches, or leave out the last one"
            )
        var, mean = torch.var_mean(x.to(torch.float64), dim=axes)
        moments = found.moments.setdefault(name, _Moments(torch.zeros_like(mean), torch.zeros_like(var)))
        moments.mean += count * mean
        moments.var += count * var
        moments.count += count

    return hook


def _refreshed(
    member: dict[str, _Moments], base: dict[str, _Moments], before: Params, plain: bool
) -> dict[str, Tensor]:
    new: dict[str, Tensor] = {}
    for name, now in member.items():
        then = base[name]
        prefix = f"{name}." if name else ""
        mean, var = before[f"{prefix}running_mean"], before[f"{prefix}running_var"]
        shift, ratio = (now.mean - then.mean) / now.count, now.var / then.var.clamp(min=torch.finfo(var.dtype).tiny)
        ratio = torch.where(then.var > 0, ratio, 1.0)
        new[f"{prefix}running_mean"] = (now.mean / now.count if plain else mean + shift).to(mean.dtype)
        new[f"{prefix}running_var"] = (now.var / now.count if plain else var * ratio).to(var.dtype)
    return new
