"""Task vectors: one network, fine-tuned on five tasks, merged into one for all of them.

Tasks are the digits as they are, turned left, turned right, mirrored, and as negatives, all with the same ten classes.
The base is trained on the digits as they are. A third of the rows trains, 300 choose scales, the rest gives the
figures, which are means over tasks. `ensemble` is the mean probability of all experts; `own expert` knows which task a
row is of. Methods with data read the 300 images of each task, without labels.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from measure import Figures, Rows, judge_ensemble, judge_params, log_probs, network, split
from soups import tune
from torch import Tensor, nn

import pluria
from pluria.core.ensemble import Ensemble, stack
from pluria.core.params import Params
from pluria.merge import (
    Rule,
    adamerging,
    breadcrumbs,
    dare,
    della,
    fisher,
    fisher_information,
    leafwise,
    linear,
    model_stock,
    objective_of,
    regmean,
    regmean_plus,
    sce,
    surprise,
    task_arithmetic,
    ties,
)
from pluria.sample import moments

TASKS: dict[str, Callable[[Tensor], Tensor]] = {
    "as they are": lambda x: x,
    "turned left": lambda x: x.rot90(1, (-2, -1)),
    "turned right": lambda x: x.rot90(-1, (-2, -1)),
    "mirrored": lambda x: x.flip(-1),
    "negatives": lambda x: 1 - x,
}
SCALES = (0.2, 0.3, 0.4, 0.5, 0.7, 1.0, 1.5)
HIDDEN = (256, 256)

RULES: dict[str, Callable[[float, int], Rule]] = {
    "task arithmetic": lambda scale, key: task_arithmetic(scale=scale),
    "TIES, paper, density .2": lambda scale, key: ties(scale=scale),
    "TIES, mergekit, density .2": lambda scale, key: ties(scale=scale, spec="mergekit"),
    "TIES, paper, density 1": lambda scale, key: ties(density=1.0, scale=scale),
    "DARE, density .5": lambda scale, key: dare(density=0.5, scale=scale, key=key),
    "DARE, density .1": lambda scale, key: dare(density=0.1, scale=scale, key=key),
    "DARE, density .5, mergekit": lambda scale, key: dare(density=0.5, scale=scale, key=key, spec="mergekit"),
    "DARE with TIES, density .5": lambda scale, key: dare(density=0.5, scale=scale, key=key, elect=True),
    "DELLA, density .5": lambda scale, key: della(scale=scale, key=key),
    "breadcrumbs, density .14": lambda scale, key: breadcrumbs(scale=scale),
    "breadcrumbs, density .85": lambda scale, key: breadcrumbs(density=0.85, scale=scale),
    "SCE, all places": lambda scale, key: sce(scale=scale),
    "SCE, a tenth of the places": lambda scale, key: sce(select=0.1, scale=scale),
}


def changed(rows: Rows, task: str) -> Rows:
    return Rows(TASKS[task](rows.x.view(-1, 8, 8)).reshape(-1, 64), rows.y)


def average(figures: list[Figures]) -> Figures:
    return {name: sum(one[name] for one in figures) / len(figures) for name in figures[0]}


def run(rows: Rows, seed: int) -> dict[str, Figures]:
    """Figures of every arm for one seed, means over tasks; those that have a scale take the best on the held rows."""
    train, held, test = split(rows, (600, 300), seed)
    start = tune(network(seed, HIDDEN), train, rate=0.003, seed=seed, epochs=30, batch=50)
    base = pluria.params_of(start)
    experts = stack(
        [
            pluria.params_of(tune(start, changed(train, task), rate=0.003, seed=seed, epochs=30, batch=50))
            for task in TASKS
        ]
    )

    def judged(params: Params) -> Figures:
        return average([judge_params(start, params, changed(held, task), changed(test, task)) for task in TASKS])

    def loss(params: Params) -> float:
        wrong = [
            (log_probs(start, params, changed(held, task).x).argmax(-1) != held.y).double().mean() for task in TASKS
        ]
        return float(sum(wrong)) / len(wrong)

    found = {"base": judged(base), "mean": judged(leafwise(experts, linear()))}
    found["model stock"] = judged(leafwise(experts, model_stock(), base=base))
    for name, rule in RULES.items():
        several = [leafwise(experts, rule(scale, seed), base=base) for scale in SCALES]
        best = min(range(len(SCALES)), key=lambda i, several=several: loss(several[i]))
        found[name] = {**judged(several[best]), "scale": SCALES[best]}
    found |= {name: judged(params) for name, params in with_data(start, experts, base, held).items()}
    return found | references(start, experts, held, test)


def with_data(start: nn.Module, experts: Ensemble, base: Params, held: Rows) -> dict[str, Params]:
    """One network by each method that reads inputs of the tasks, with the published options."""
    inputs = [changed(held, task).x for task in TASKS]

    def loaded(params: Params) -> nn.Module:
        model = network(0, HIDDEN)
        model.load_state_dict(dict(params))
        return model.eval()

    def measure(params: Params, task: int) -> Params:
        return moments(loaded(params), [inputs[task]]).second

    fishers = [fisher_information(loaded(expert), [x]) for expert, x in zip(experts, inputs, strict=True)]
    grams = [measure(expert, task) for task, expert in enumerate(experts)]

    def unsure(model: nn.Module) -> Tensor:
        return torch.stack([surprise(model(x)) for x in inputs]).sum()

    objective = objective_of(start, unsure)
    return {
        "Fisher": leafwise(experts, fisher(fishers)),
        "RegMean, .9 beside the diagonal": leafwise(experts, regmean(grams)),
        "RegMean++, .9 beside the diagonal": regmean_plus(experts, measure),
        "AdaMerging, a scale for each task": adamerging(experts, objective, base=base, groups=lambda name: 0),
        "AdaMerging, by tensor": adamerging(experts, objective, base=base),
        "AdaMerging++, by tensor": adamerging(experts, objective, base=base, density=0.2),
    }


def references(start: nn.Module, experts: Ensemble, held: Rows, test: Rows) -> dict[str, Figures]:
    """What is no single network."""
    each = list(zip(experts, TASKS, strict=True))
    own = [judge_params(start, expert, changed(held, task), changed(test, task)) for expert, task in each]
    all_of = [judge_ensemble(start, experts, changed(held, task), changed(test, task)) for task in TASKS]
    return {"own expert": average(own), "ensemble of all experts": average(all_of)}
