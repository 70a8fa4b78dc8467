"""RegMean: linear layers that come closest to every member's outputs on that member's own inputs.

    G_k = mean of x x^T over the inputs x of member k's layer       G~_k = diag G_k + off (G_k - diag G_k)
    W (sum_k w_k G~_k) = sum_k w_k W_k G~_k

With `off` one this is the least-squares answer, of  sum_k w_k E |W x - W_k x|^2;  with zero, Fisher merging with G's
diagonal. It is solved for the distance from the mean, so that where no input says anything the mean stays. RegMean++
takes the inputs that a layer gets in the merged network, of which the layers before are solved already.

Sources: Jin et al., "Dataless knowledge fusion by merging weights of language models", ICLR 2023; Nguyen et al.,
"RegMean++", 2025.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from pluria.core.ensemble import Ensemble
from pluria.core.params import Params
from pluria.core.reduce import weighted_sum
from pluria.merge.leafwise import leafwise
from pluria.merge.linear import linear
from pluria.merge.rule import Named, Piece, Rule, Rules
from pluria.numbers.grid import Layout, layout

Measure = Callable[[Params, int], Params]
"""(params, position of a member) -> second moments of the layers' inputs, of these params on the member's inputs."""


def regmean(grams: Sequence[Params], *, off: float = 0.9, layouts: Mapping[str, Layout] | None = None) -> Rules:
    """The rule of RegMean, for members in the order of their tables.

    grams     a table for each member, of weights' names to second moments `[d, d]` or `[blocks, d, d]` of their layers'
              inputs, such as `moments(model, inputs).second`; only they leave their owner, no inputs do
    off       what the entries beside the diagonal are multiplied with, in [0, 1]
    layouts   of weights whose outputs are not the first axis, such as `moments(model, inputs).layouts`

    Tensors that are in no table, as biases and norms, become the mean. Raises ValueError for another `off`, for tables
    of other names, and for moments that do not fit.
    """
    if not 0 <= off <= 1 or not grams:
        raise ValueError(f"give a table of moments for each member, and `off` in [0, 1]; got {off}")
    if odd := [name for table in grams for name in set(table) ^ set(grams[0])]:
        raise ValueError(f"the members' moments are not of the same layers: {', '.join(sorted(set(odd))[:5])}")

    def rule(name: str) -> Rule:
        def combine(piece: Piece, _: Any) -> Tensor:
            form = (layouts or {}).get(name) or layout(piece.shape)
            second = torch.stack([_fits(table[name], form, name) for table in grams])
            second = off * second + (1 - off) * torch.diag_embed(second.diagonal(dim1=-2, dim2=-1))
            rows = torch.stack([form.to_rows(value.to(torch.float64)) for value in piece.values])
            rows = rows.view(len(rows), second.shape[1], -1, form.inputs)
            mean = weighted_sum(rows, piece.weights)
            pull = weighted_sum((rows - mean) @ second, piece.weights)
            made = mean + _solve(weighted_sum(second, piece.weights), pull.mT).mT
            return form.from_rows(made.reshape(form.rows, -1), piece.shape).reshape(-1)

        return Rule(combine, members=len(grams), pieces="tensor")

    return Named({name: rule(name) for name in grams[0]}, linear())


def regmean_plus(
    ensemble: Ensemble,
    measure: Measure,
    *,
    order: Sequence[Sequence[str]] | None = None,
    off: float = 0.9,
    layouts: Mapping[str, Layout] | None = None,
) -> dict[str, Tensor]:
    """RegMean++: layer after layer, with the inputs that the merged network gives it so far.

    measure   runs a network: (params, position of a member) -> moments on that member's inputs
    order     weights that are solved together, as query, key and value, in the order in which the network runs; by
              default one after another, as `measure` names them

    It runs the network on all members' inputs once for each entry of `order`. Raises ValueError as `regmean` does.
    """
    params = leafwise(ensemble, linear())
    for names in order or [[name] for name in measure(params, 0)]:
        measured = [measure(params, position) for position in range(len(ensemble))]
        grams = [{name: table[name] for name in names} for table in measured]
        own = replace(ensemble, families={name: ensemble.families[name] for name in names})
        solved = leafwise(own, regmean(grams, off=off, layouts=layouts))
        tied = {id(ensemble.families[name]): value for name, value in solved.items()}
        params |= {name: tied[id(family)] for name, family in ensemble.families.items() if id(family) in tied}
    return params


def _fits(second: Tensor, form: Layout, name: str) -> Tensor:
    """Moments as float64 `[blocks, d, d]`."""
    wide = second.to(torch.float64).reshape(-1, *second.shape[-2:])
    if wide.shape[1:] != (form.inputs, form.inputs) or form.rows % len(wide):
        raise ValueError(f"tensor {name!r}: moments of shape {tuple(second.shape)} do not fit {form}")
    return wide


def _solve(second: Tensor, right: Tensor) -> Tensor:
    """The least of the answers X of  second X = right,  for blocks that may be singular."""
    lower, failed = torch.linalg.cholesky_ex(second)
    pivots, size = lower.diagonal(dim1=-2, dim2=-1).square(), second.shape[-1]
    floor = second.diagonal(dim1=-2, dim2=-1) * (size * torch.finfo(torch.float64).eps)
    if not bool(failed.any()) and bool((pivots > floor).all()):
        return torch.cholesky_solve(right, lower)
    found: Tensor = torch.linalg.lstsq(second, right, driver="gelsd").solution
    return found
