"""Several trainings as one ensemble, by where each of them starts.

    independent  member i from model i                    deep ensembles; global ones where each is pre-trained apart
    local        every member from the one given model
    chain        member i from member i - 1               snapshot ensembles (SSE) by whole cycles
    star         the first from the model, all others from the first                                       (StarSSE)

Local, chain and star members share a basin as long as cycles are mild, so that their mean is a good network as well.
Cycles that leave the start, of chain and star, take two to four times the rate of the first training.

Members are held until the last one is made: one that fails, or is NaN, ends the call and loses those before it. Where a
training is dear, let `fit` store each member as it is made, and read it back when it is asked for it again.

Source: Sadrtdinov et al., "To Stay or Not to Stay in the Pre-train Basin: Insights on Ensembling in Transfer Learning",
NeurIPS 2023.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable

from torch import nn

from pluria.core.ensemble import Ensemble, stack
from pluria.core.params import check_finite, params_of

Fit = Callable[[nn.Module, int], nn.Module]
"""(a copy to train, number of the member) -> the trained network; optimisers are made anew inside."""


def independent(models: Iterable[nn.Module], fit: Fit) -> Ensemble:
    """A member from each model."""
    return _collected(fit(copy.deepcopy(model), number) for number, model in enumerate(models))


def local(model: nn.Module, fit: Fit, *, members: int) -> Ensemble:
    """Every member from the same model."""
    return independent((model for _ in range(members)), fit)


def chain(model: nn.Module, fit: Fit, *, members: int) -> Ensemble:
    """Each member from the one before."""

    def run() -> Iterable[nn.Module]:
        last = model
        for number in range(members):
            last = fit(copy.deepcopy(last), number)
            yield last

    return _collected(run())


def star(model: nn.Module, fit: Fit, *, members: int) -> Ensemble:
    """The first member from the model, all others from the first: they do not depend on each other's order."""

    def run() -> Iterable[nn.Module]:
        if members < 1:
            return
        first = fit(copy.deepcopy(model), 0)
        yield first
        start = copy.deepcopy(first)
        yield from (fit(copy.deepcopy(start), number) for number in range(1, members))

    return _collected(run())


def _collected(models: Iterable[nn.Module]) -> Ensemble:
    found = []
    for number, model in enumerate(models):
        found.append(params_of(model))
        check_finite(found[-1], what=f"member {number}")
    if not found:
        raise ValueError("no members to train; ask for one or more")
    return stack(found)
