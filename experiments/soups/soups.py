"""Fine-tunes of one network: which soup of them, against the best of them and against their ensemble.

Trained on digits 0-4, then fine-tuned on 60 images of 5-9, K times with other seeds and rates. `local`: each from the
trained network. `star`: the first from there, all others from the first with four times its rate. 200 images of 5-9
choose and fit, the others give the figures.
"""

from __future__ import annotations

from functools import partial

import torch
from measure import Figures, Rows, judge_ensemble, judge_params, log_probs, loss_on, network, outputs, split
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

import pluria
from pluria.core.ensemble import Ensemble, stack
from pluria.core.params import Params
from pluria.merge import (
    amortised,
    corrected_mean,
    greedy_soup,
    leafwise,
    learned_soup,
    linear,
    manifold_mixing,
    median,
    objective_of,
    pruned_soup,
    radin_soup,
    soft_merge,
)
from pluria.zoo.fit import descend

MEMBERS = 8
RATES = (0.003, 0.01)


def tune(model: nn.Module, rows: Rows, *, rate: float, seed: int, epochs: int = 60, batch: int = 20) -> nn.Module:
    def loss(network: nn.Module, which: Tensor) -> Tensor:
        return cross_entropy(network(rows.x[which]), rows.y[which])

    return descend(model, loss, examples=len(rows.y), epochs=epochs, batch=batch, rate=rate, seed=seed)


def members(start: nn.Module, rows: Rows, kind: str, seed: int) -> Ensemble:
    """K fine-tunes of a network."""
    first = tune(start, rows, rate=RATES[0], seed=1000 * seed)
    if kind == "star":
        rest = [tune(first, rows, rate=4 * RATES[0], seed=1000 * seed + k) for k in range(1, MEMBERS)]
    else:
        rest = [tune(start, rows, rate=RATES[k % 2], seed=1000 * seed + k) for k in range(1, MEMBERS)]
    return stack([pluria.params_of(model) for model in (first, *rest)])


def arms(model: nn.Module, start: Params, ensemble: Ensemble, held: Rows) -> dict[str, Params]:
    """Every way to one network, with what it is called."""
    loss = loss_on(model, held)
    objective = objective_of(model, lambda network: cross_entropy(network(held.x), held.y))
    kept = outputs(model, ensemble, held.x)
    surrogate = partial(_nll, held.y)
    layer, whole = (lambda name: name.split(".")[0]), (lambda name: 0)
    made: dict[str, Params] = {
        "best member": min(ensemble, key=loss),
        "mean (uniform soup)": leafwise(ensemble, linear()),
        "median": leafwise(ensemble, median()),
        "mean, spread given back": leafwise(ensemble, corrected_mean()),
        "greedy soup": greedy_soup(ensemble, loss),
        "pruned soup": pruned_soup(ensemble, loss),
        "greedy by kept outputs (RADIN), 0 evaluations": radin_soup(ensemble, kept, surrogate),
        "RADIN, 4 evaluations": radin_soup(ensemble, kept, surrogate, loss=loss, evaluations=4),
        "learned soup, whole model": learned_soup(ensemble, objective, groups=whole),
        "learned soup, by layer": learned_soup(ensemble, objective, groups=layer),
        "learned soup, by tensor": learned_soup(ensemble, objective),
        "soft merging, by layer": soft_merge(ensemble, objective, groups=layer, penalty=0.01),
        "manifold mixing, by layer": manifold_mixing(ensemble, loss, objective, groups=layer),
        "the network before fine-tuning (pivot)": start,
    }
    for rate in (1e-3, 1e-2):
        made[f"amortised, Adam {rate:g} from the pivot"] = amortised(
            ensemble, lambda tensors, rate=rate: torch.optim.Adam(tensors, lr=rate), pivot=start
        )
    return made


def run(rows: Rows, kind: str, seed: int) -> dict[str, Figures]:
    """Figures of every arm for one seed."""
    low, high = rows.take(rows.y < 5), rows.take(rows.y >= 5)
    start = tune(network(seed), low, rate=0.003, seed=seed, epochs=20, batch=50)
    few, held, test = split(high, (60, 200), seed)
    ensemble = members(start, few, kind, seed)
    found = {
        name: judge_params(start, params, held, test)
        for name, params in arms(start, pluria.params_of(start), ensemble, held).items()
    }
    each = [judge_params(start, member, held, test) for member in ensemble]
    found["mean member"] = {name: sum(one[name] for one in each) / MEMBERS for name in each[0]}
    found["ensemble of all"] = judge_ensemble(start, ensemble, held, test)
    return found


def _nll(y: Tensor, z: Tensor) -> float:
    return float(cross_entropy(z, y))


def rank_correlation(rows: Rows, seed: int, subsets: int = 300) -> float:
    """Spearman's, over random subsets of local fine-tunes, of the soup's NLL and the mean outputs' NLL."""
    start = tune(network(seed), rows.take(rows.y < 5), rate=0.003, seed=seed, epochs=20, batch=50)
    few, held, _ = split(rows.take(rows.y >= 5), (60, 200), seed)
    ensemble = members(start, few, "local", seed)
    kept, draw = outputs(start, ensemble, held.x), torch.Generator().manual_seed(seed)
    pairs = []
    for _ in range(subsets):
        chosen = torch.rand(MEMBERS, generator=draw) < 0.5
        if chosen.any():
            soup = leafwise(ensemble.reweight(chosen.double()), linear())
            own = _nll(held.y, log_probs(start, soup, held.x))
            pairs.append((own, _nll(held.y, kept[chosen].mean(0))))
    ranks = torch.tensor(pairs).argsort(0).argsort(0).double()
    return float(torch.corrcoef(ranks.T)[0, 1])
