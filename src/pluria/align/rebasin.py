"""Git Re-Basin: members' hidden places are permuted so that they fit one of them, and their functions stay the same.

    weights       the permutations pi_k that make <reference, pi_k(member k)> large; one example, to trace the model
    activations   the permutations that pair the most correlated activations; unlabelled inputs

Source: Ainsworth, Hayase and Srinivasa, "Git Re-Basin: Merging Models modulo Permutation Symmetries", ICLR 2023.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal

import torch
from torch import Tensor, nn

from pluria.align.activations import match_activations
from pluria.align.follow import tensors_of
from pluria.align.groups import Groups, check_groups, permuted
from pluria.align.infer import Traced, traced
from pluria.align.matching import match_weights
from pluria.core.calling import Forward, call, check_batches, moved, place
from pluria.core.ensemble import Ensemble
from pluria.core.family import Stacked
from pluria.core.model import tensors, ties, working_copy
from pluria.core.params import Params, check_fit
from pluria.numbers.key import Key

By = Literal["weights", "activations"]


def rebasin(
    model: nn.Module,
    ensemble: Ensemble,
    inputs: Iterable[Any] = (),
    *,
    reference: int | Params = 0,
    by: By = "weights",
    groups: Groups | None = None,
    forward: Forward = call,
    key: Key | int = 0,
) -> Ensemble:
    """The ensemble with every member's hidden places permuted to fit the reference; no member's function changes.

    inputs      batches; the first one traces the model and checks that functions stay, all of them give activations
    reference   the position of a member in the ensemble, or params
    by          "weights" or "activations"
    groups      the table of what is permuted together, inferred where it is not given
    key         of the order in which groups are matched by weights

    Matching by weights never lowers a member's inner product with the reference. The permuted tensors are kept for the
    present members. Raises ValueError where nothing may be permuted, where inputs are needed and there are none, where
    a table does not fit, and where a member's outputs change: then the table is wrong.
    """
    if by not in ("weights", "activations"):
        raise ValueError(f"places are matched by 'weights' or by 'activations'; got {by!r}")
    check_batches(inputs)
    batches = [moved(batch, place(model), None) for batch in inputs]
    known = _known(model, batches, groups, by, forward)
    against = _reference(model, ensemble, reference)
    distinct = tuple(dict.fromkeys(ensemble.members))
    twins = working_copy(model), working_copy(model)
    _write(twins[0], against)
    names = _matched(model)
    rows: dict[str, list[Tensor]] = {name: [] for name in known.groups.axes}
    for member in distinct:
        params = ensemble.params(member)
        if by == "weights":
            one, other = ({name: held[name].cpu() for name in names} for held in (against, params))
            places = match_weights(one, other, known.groups, key if isinstance(key, Key) else Key(key))
        else:
            _write(twins[1], params)
            places = match_activations(*twins, batches, known, forward)
        after = permuted(params, known.groups, places)
        if batches:
            _refuse_change(twins[1], params, after, batches[0], forward)
        for name in rows:
            rows[name].append(after[name])
    return _kept(ensemble, rows, distinct, ties(model))


def _known(model: nn.Module, batches: list[Any], groups: Groups | None, by: By, forward: Forward) -> Traced:
    if groups is not None:
        if by == "activations":
            raise ValueError("activations are matched by the groups that tracing finds; a table serves by='weights'")
        check_groups(groups, tensors(model))
        return Traced(groups, ())
    if not batches:
        raise ValueError("give `inputs`, a list of one batch or more to trace the model with, or a table of `groups`")
    found = traced(model, batches[0], forward)
    if not found.groups.sizes:
        raise ValueError("no axis of this model may be permuted: it has no hidden places, or operations without a rule")
    return found


def _reference(model: nn.Module, ensemble: Ensemble, reference: int | Params) -> Params:
    check_fit(ensemble.outline(), tensors(model), what="the ensemble")
    if not isinstance(reference, int):
        check_fit(reference, tensors(model), what="the reference")
        return reference
    if not 0 <= reference < len(ensemble):
        raise ValueError(f"the reference is a position in 0..{len(ensemble) - 1}, or params; got {reference}")
    return ensemble.params(ensemble.members[reference])


def _matched(model: nn.Module) -> list[str]:
    """Names of what is compared: parameters, each once. Running statistics are permuted with them, and not compared."""
    first, own = ties(model), dict(model.named_parameters(remove_duplicate=False))
    return [name for name, value in own.items() if first.get(name) == name and value.is_floating_point()]


def _write(twin: nn.Module, params: Params) -> None:
    with torch.no_grad():
        for name, value in tensors(twin).items():
            if name in params:
                value.copy_(params[name])


def _refuse_change(twin: nn.Module, before: Params, after: Params, batch: Any, forward: Forward) -> None:
    """Raise ValueError where a member answers differently beyond rounding."""
    for one, other in zip(*(_outputs(twin, params, batch, forward) for params in (before, after)), strict=True):
        scale = max(float(one.abs().max()), 1e-30) if one.numel() else 1.0
        off = float((one - other).abs().max()) / scale if one.numel() else 0.0
        if not off <= 2e4 * torch.finfo(one.dtype).eps:
            raise ValueError(
                f"permuting changed a member's outputs by {off:.1e} of their largest value, so the groups are wrong. "
                "Correct the table, or report a model whose groups were inferred wrongly"
            )


def _outputs(twin: nn.Module, params: Params, batch: Any, forward: Forward) -> list[Tensor]:
    _write(twin, params)
    with torch.no_grad():
        return [value for value in tensors_of(forward(twin, batch)) if value.is_floating_point()]


def _kept(
    ensemble: Ensemble, rows: dict[str, list[Tensor]], members: tuple[int, ...], first: dict[str, str]
) -> Ensemble:
    made = {name: Stacked(torch.stack(values), members) for name, values in rows.items() if first[name] == name}
    return ensemble.with_families({name: made[first[name]] for name in rows})
