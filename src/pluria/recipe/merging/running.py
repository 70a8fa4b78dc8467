"""How `pluria merge` calls the merges that run a network or hold all models: (bench, options) -> params."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from pluria import merge
from pluria.align import zip_trunk as trunk
from pluria.align import zipit as zipped
from pluria.core.calling import call
from pluria.core.ensemble import Ensemble
from pluria.core.params import Params
from pluria.predict import logits
from pluria.recipe.merging.bench import Bench, groups_of
from pluria.sample import moments

OPTIMISERS = {
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
    "adagrad": torch.optim.Adagrad,
    "adadelta": torch.optim.Adadelta,
    "sgd": torch.optim.SGD,
}


def greedy_soup(
    bench: Bench, *, order: Sequence[int] | None = None, strict: bool = True, evaluations: int | None = None
) -> Params:
    """Members join while the loss of the rows falls."""
    return merge.greedy_soup(bench.ensemble, bench.loss, order=order, strict=strict, evaluations=evaluations)


def pruned_soup(
    bench: Bench, *, order: Sequence[int] | None = None, strict: bool = True, evaluations: int | None = None
) -> Params:
    """Members leave while the loss of the rows falls."""
    return merge.pruned_soup(bench.ensemble, bench.loss, order=order, strict=strict, evaluations=evaluations)


def radin_soup(bench: Bench, *, evaluations: int = 0) -> Params:
    """Greedy by the members' outputs on the rows."""
    outputs, targets = bench.outputs(bench.ensemble)
    loss = bench.loss if evaluations else None

    def judge(pooled: Tensor) -> float:
        return float(cross_entropy(pooled, targets))

    return merge.radin_soup(bench.ensemble, outputs, judge, loss=loss, evaluations=evaluations)


def learned_soup(bench: Bench, *, groups: str = "tensor", steps: int = 100, rate: float = 0.05) -> Params:
    """Shares fitted to the rows."""
    return merge.learned_soup(bench.ensemble, bench.objective, groups=groups_of(groups), steps=steps, rate=rate)


def soft_merge(
    bench: Bench, *, groups: str = "tensor", penalty: float = 0.0, steps: int = 100, rate: float = 0.05
) -> Params:
    """Gates fitted to the rows."""
    options = {"groups": groups_of(groups), "penalty": penalty, "steps": steps, "rate": rate}
    return merge.soft_merge(bench.ensemble, bench.objective, **options, key=bench.seed)


def manifold_mixing(bench: Bench, *, groups: str = "tensor", steps: int = 10, rate: float = 0.1) -> Params:
    """A greedy soup with shares fitted to the rows."""
    options = {"groups": groups_of(groups), "steps": steps, "rate": rate}
    return merge.manifold_mixing(bench.ensemble, bench.loss, bench.objective, **options)


def evolved_soup(bench: Bench, *, groups: str = "model", population: int = 16, generations: int = 10) -> Params:
    """Shares searched by the loss of the rows."""
    options = {"groups": groups_of(groups), "population": population, "generations": generations}
    return merge.evolved_soup(bench.ensemble, bench.loss, **options, key=bench.seed)


def amortised(bench: Bench, *, optimiser: str | None = None, rate: float | None = None, epochs: int = 1) -> Params:
    """Drawn to one member after another from the base, or from the mean; `optimiser` by its name."""
    if optimiser is not None and optimiser not in OPTIMISERS:
        raise ValueError(f"an optimiser is one of {', '.join(OPTIMISERS)}; got {optimiser!r}")
    if (optimiser is None) != (rate is None):
        raise ValueError("an optimiser and its rate go together; without both it is the mean")
    steps = None if optimiser is None else lambda tensors: OPTIMISERS[optimiser](tensors, lr=rate)
    return merge.amortised(bench.ensemble, steps, pivot=bench.base, epochs=epochs, key=bench.seed)


def bang(bench: Bench, *, head: Sequence[str] | str) -> Params:
    """The mean with logit scales on the rows matched; `head` names the tensors of the last layer."""
    names = [head] if isinstance(head, str) else list(head)
    if odd := [name for name in names if name not in bench.ensemble.families]:
        raise ValueError(f"the models have no {', '.join(odd)} to be a head; the last are {_last(bench)}")
    scales = merge.logit_scales(bench.outputs(bench.ensemble)[0])
    return merge.leafwise(bench.ensemble, merge.bang(scales, names))


def regmean_plus(bench: Bench, *, off: float = 0.9) -> Params:
    """Layer after layer, with each model's own rows where it has some."""
    model = bench.model
    layouts = moments(model, bench.inputs(0)[:1]).layouts

    def measure(params: Params, member: int) -> Params:
        model.load_state_dict(dict(params))
        return moments(model, bench.inputs(member)).second

    return merge.regmean_plus(bench.ensemble, measure, off=off, layouts=layouts)


def adamerging(
    bench: Bench, *, groups: str = "tensor", start: float = 0.3, steps: int = 500, rate: float = 1e-3,
    density: float | None = None,
) -> Params:  # fmt: skip
    """Scales fitted to be sure of the rows, whose targets are not read; with a `density`, AdaMerging++."""
    sets = [bench.inputs(member) for member in range(len(bench.rows))]

    def loss(network: torch.nn.Module) -> Tensor:
        each = [torch.cat([logits(call(network, x)) for x in inputs]) for inputs in sets]
        return torch.stack([merge.surprise(outputs) for outputs in each]).sum()

    options = {"groups": groups_of(groups), "start": start, "steps": steps, "rate": rate, "density": density}
    return merge.adamerging(bench.ensemble, merge.objective_of(bench.model, loss), base=bench.origin, **options)


def zipit(bench: Bench, *, alpha: float = 0.3, beta: float = 0.125) -> Params:
    """Correlated hidden places become one, by their activations on the rows."""
    return zipped(bench.model, bench.ensemble, bench.inputs(), alpha=alpha, beta=beta)


def zip_trunk(bench: Bench, *, own: Sequence[str] | str, alpha: float = 0.3, beta: float = 0.125) -> Ensemble:
    """The same up to the layers that `own` name patterns say, which stay each model's: as many models as before."""
    patterns = [own] if isinstance(own, str) else list(own)
    return trunk(bench.model, bench.ensemble, bench.inputs(), own=patterns, alpha=alpha, beta=beta)


def mix(bench: Bench, *, matrix: Sequence[Sequence[float]]) -> Ensemble:
    """A round of gossip: as many models as before."""
    return merge.mix(bench.ensemble, torch.tensor(matrix, dtype=torch.float64))


def _last(bench: Bench) -> str:
    return ", ".join(list(bench.ensemble.families)[-2:])
