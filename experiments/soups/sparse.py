"""Sparse soups: copies retrained from one pruned network are averaged; copies pruned apart lose their zeros.

A network trained on digits is pruned to a tenth of its weights (largest magnitudes of all matrices) in one step or in
two, and retrained after each. Copies differ in the order of rows and in the rate. A sparse soup is the mean of five of
them. `instant` prunes by the union of masks of five weak copies. 800 rows train, 200 fit the temperature, the rest
gives the figures.
"""

from __future__ import annotations

import torch
from measure import Figures, Rows, judge_ensemble, judge_params, network, split
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.functional import cross_entropy

import pluria
from pluria.core.ensemble import Ensemble, stack
from pluria.core.params import Params
from pluria.merge import instant_soup, leafwise, linear, sparse_soup, wise_ft
from pluria.zoo.fit import descend

COPIES = 5
DENSITY = 0.05
STEPS = (0.2, DENSITY)
RATES = (0.01, 0.005, 0.02)


def matrix(name: str) -> bool:
    return name.endswith("weight")


def density(params: Params) -> float:
    """Share of the matrices' elements that are not zero."""
    held = [value for name, value in params.items() if matrix(name)]
    return sum(int((value != 0).sum()) for value in held) / sum(value.numel() for value in held)


def pruned(params: Params, keep: float, by: Ensemble | None = None) -> dict[str, Tensor]:
    """Params with the largest elements of their matrices, or of those of weak copies united."""
    weak = by or stack([params])
    trimmed, kept = instant_soup(density=keep), wise_ft(alpha=0)
    return leafwise(weak, lambda name: trimmed if matrix(name) else kept, base=params)


def retrain(
    model: nn.Module, params: Params, rows: Rows, seed: int, epochs: int = 25, rate: float = 0.01
) -> dict[str, Tensor]:
    """Trained on from `params`; what is zero in a matrix stays zero."""
    whole = {name: torch.ones_like(value, dtype=torch.bool) for name, value in params.items()}
    masks = {name: value != 0 if matrix(name) else whole[name] for name, value in params.items()}
    start = network(0)
    start.load_state_dict(dict(params))

    def loss(net: nn.Module, which: Tensor) -> Tensor:
        masked = {name: value * masks[name] for name, value in net.named_parameters()}
        return cross_entropy(functional_call(net, masked, rows.x[which]), rows.y[which])

    tuned = descend(start, loss, examples=len(rows.y), epochs=epochs, batch=50, rate=rate, seed=seed)
    return {name: value * masks[name] for name, value in pluria.params_of(tuned).items()}


def run(rows: Rows, seed: int) -> dict[str, Figures]:
    """Figures of every arm for one seed, with the share of weights that is left."""
    train, held, test = split(rows, (800, 200), seed)
    model = network(seed)
    dense = retrain(model, pluria.params_of(model), train, seed)
    seeds = [100 * seed + k for k in range(COPIES)]
    found: dict[str, Figures] = {}

    def retrained(params: Params) -> Ensemble:
        made = [retrain(model, params, train, one, rate=RATES[k % 3]) for k, one in enumerate(seeds)]
        return stack(made)

    def note(name: str, params: Params) -> None:
        found[name] = {**judge_params(model, params, held, test), "density": density(params)}

    note("dense", dense)
    once = retrained(pruned(dense, DENSITY))
    each = [judge_params(model, member, held, test) for member in once]
    found["one step: mean copy"] = {k: sum(one[k] for one in each) / COPIES for k in each[0]}
    found["one step: mean copy"]["density"] = density(once.params(0))
    note("one step: sparse soup", leafwise(once, sparse_soup()))
    found["one step: ensemble of the copies"] = {**judge_ensemble(model, once, held, test), "density": COPIES * DENSITY}
    single = soup = dense
    for keep in STEPS:
        single = retrain(model, pruned(single, keep), train, seeds[0])
        soup = leafwise(retrained(pruned(soup, keep)), sparse_soup())
    note("two steps: one copy", single)
    note("two steps: sparse soup after each", soup)
    apart = stack([retrain(model, pruned(retrain(model, dense, train, one), DENSITY), train, one) for one in seeds])
    mean = leafwise(apart, linear())
    note("pruned apart: mean, which is denser", mean)
    note("pruned apart: mean, pruned again", pruned(mean, DENSITY))
    few = train.take(torch.arange(80))
    weak = stack([retrain(model, dense, few, one, epochs=2) for one in seeds])
    united = pruned(dense, DENSITY, by=weak)
    note("instant soup, retrained", retrain(model, united, train, seeds[0]))
    note("one step to the density of the instant soup", retrain(model, pruned(dense, density(united)), train, seeds[0]))
    return found
