"""One example of every method in the catalogue: how the laws call it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from pluria.core.adapter import Adapter, LowRank
from pluria.core.ensemble import Ensemble, stack
from pluria.core.params import Params, params_of
from pluria.merge import leafwise, linear
from pluria.pool import mean_probability
from pluria.recipe.catalogue import CATALOGUE
from pluria.recipe.method import Method

Made = tuple[nn.Module, Ensemble]


def network(seed: int = 0) -> nn.Sequential:
    """A convolution, a batch norm with statistics of its own, dropout and a linear head; images [N, 2, 5, 5]."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        made = nn.Sequential(
            nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Dropout(0.3), nn.Linear(36, 3)
        )
        made[1].running_mean.copy_(torch.randn(4))
        made[1].running_var.copy_(torch.rand(4) + 0.5)
    return made.eval()


def images(count: int = 12) -> Tensor:
    """Inputs of the network."""
    return torch.randn(count, 2, 5, 5, generator=torch.Generator().manual_seed(5))


@dataclass(frozen=True)
class Sampler:
    """`make(function, model, members, key)` calls the method; `grows` says whether it takes a number of members."""

    make: Callable[[Callable[..., Any], nn.Module, int, int], Any]
    grows: bool = True

    def __call__(self, method: Method, members: int = 3, key: int = 7, model: nn.Module | None = None) -> Made:
        """The network to run and its ensemble."""
        base = network() if model is None else model
        made = self.make(method.load(), base, members, key)
        if isinstance(made, tuple):
            return made
        return base, made if isinstance(made, Ensemble) else made.ensemble


def ends(model: nn.Module, count: int) -> list[Params]:
    """The network's params and those of others of its kind."""
    return [params_of(model), *(params_of(network(seed)) for seed in range(1, count))]


def like(model: nn.Module, members: int) -> Ensemble:
    """A low-precision ensemble for noise to be matched to."""
    import pluria

    return pluria.low_precision(model, format="int3", members=members)


SAMPLERS: dict[str, Sampler] = {
    "full_precision": Sampler(lambda f, model, members, key: f(params_of(model)), grows=False),
    "collected": Sampler(lambda f, model, members, key: f(ends(model, members))),
    "nearest": Sampler(lambda f, model, members, key: f(model, format="int3"), grows=False),
    "low_precision": Sampler(lambda f, model, members, key: f(model, format="int3", members=members, key=key)),
    "compensated": Sampler(
        lambda f, model, members, key: f(model, [images()], format="int3", members=members, key=key)
    ),
    "gptq": Sampler(lambda f, model, members, key: f(model, [images()], format="int3"), grows=False),
    "gaussian": Sampler(lambda f, model, members, key: f(like(model, members), key=key)),
    "isotropic": Sampler(lambda f, model, members, key: f(like(model, members), std=0.1, key=key)),
    "dropout": Sampler(lambda f, model, members, key: f(model, members=members, key=key)),
    "plane": Sampler(lambda f, model, members, key: f(*ends(model, 3), points=members)),
    "path": Sampler(lambda f, model, members, key: f(ends(model, 2), steps=members)),
}


def squares(params: Params) -> float:
    """A loss of params that every member and their mean differ in: the sum of all squares."""
    return float(sum(value.square().sum() for value in params.values() if value.is_floating_point()))


def slope(params: Params) -> tuple[float, Params]:
    """`squares` with its gradient."""
    return squares(params), {name: 2 * value for name, value in params.items() if value.is_floating_point()}


def halfway(params: Params) -> float:
    """A loss that is least halfway between the first two members of the laws, whose scales are -.95 and -.23."""
    return abs(float(params["scale"]) + 0.59)


def flat(ensemble: Ensemble) -> Tensor:
    """Outputs [K, N] of members whose outputs are their floating tensors."""
    return torch.stack([torch.cat([v.flatten() for v in p.values() if v.is_floating_point()]) for p in ensemble])


def gram(inputs: Tensor) -> dict[str, Tensor]:
    """Moments of inputs [N, 5] to the layer `a`, and some for every direction."""
    wide = inputs.double()
    return {"a.weight": wide.T @ wide + torch.eye(5, dtype=torch.float64)}


def one_expert(merge: Callable[..., dict[str, Tensor]], ensemble: Ensemble) -> dict[str, Tensor]:
    """The members as experts of one group, used by their weights."""
    experts = {name: torch.stack([member[name] for member in ensemble]) for name in ensemble.families}
    groups = torch.zeros(len(ensemble), dtype=torch.int64)
    made = merge(experts, ensemble.weights, groups, hidden={"a.weight": 1, "a.bias": 1})
    return {name: value[0] for name, value in made.items()}


def steps(ensemble: Ensemble, base: Params) -> list[Adapter]:
    """The matrix of each member as an adapter of the base."""
    return [
        {"a.weight": LowRank(one["a.weight"] - base["a.weight"], torch.eye(5).to(base["scale"]))} for one in ensemble
    ]


def onto(base: Params, adapter: Adapter) -> dict[str, Tensor]:
    """A base with an adapter's products added."""
    return {n: (v + adapter[n].product()).to(v.dtype) if n in adapter else v for n, v in base.items()}


Merge = Callable[[Ensemble, Params], dict[str, Tensor]]


class Hidden(nn.Module):
    """A network of the tensors that merges are tested on: six hidden places, which a product reads; inputs [N, 5]."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.n = nn.Linear(5, 6), nn.Module()
        self.scale = nn.Parameter(torch.zeros(()))
        self.n.register_buffer("num_batches_tracked", torch.tensor(0))
        self.register_buffer("index", torch.arange(3))

    def forward(self, x: Tensor) -> Tensor:
        hidden = (self.a(x) * self.scale).relu()
        return hidden @ hidden.T


MERGES: dict[str, Callable[[Callable[..., Any]], Merge]] = {
    "linear": lambda f: lambda ensemble, base: leafwise(ensemble, f()),
    "median": lambda f: lambda ensemble, base: leafwise(ensemble, f()),
    "trimmed": lambda f: lambda ensemble, base: leafwise(ensemble, f()),
    "slerp": lambda f: lambda ensemble, base: leafwise(ensemble, f()),
    "corrected_mean": lambda f: lambda ensemble, base: leafwise(ensemble, f()),
    "wise_ft": lambda f: lambda ensemble, base: leafwise(ensemble, f(), base=base),
    "task_arithmetic": lambda f: lambda ensemble, base: leafwise(ensemble, f(), base=base),
    "dare": lambda f: lambda ensemble, base: leafwise(ensemble, f(density=0.5), base=base),
    "model_stock": lambda f: lambda ensemble, base: leafwise(ensemble, f(), base=base),
    "greedy_soup": lambda f: lambda ensemble, base: f(ensemble, squares),
    "pruned_soup": lambda f: lambda ensemble, base: f(ensemble, halfway),
    "radin_soup": lambda f: lambda ensemble, base: f(ensemble, flat(ensemble), lambda z: float(z.square().sum())),
    "mix": lambda f: lambda ensemble, base: f(ensemble, ensemble.weights.expand(len(ensemble), -1)).params(0),
    "ties": lambda f: lambda ensemble, base: leafwise(ensemble, f(), base=base),
    "della": lambda f: lambda ensemble, base: leafwise(ensemble, f(), base=base),
    "breadcrumbs": lambda f: lambda ensemble, base: leafwise(ensemble, f(), base=base),
    "sce": lambda f: lambda ensemble, base: leafwise(ensemble, f(), base=base),
    "bang": lambda f: lambda e, base: leafwise(e, f(flat(e).double().norm(dim=1), ["a.weight", "a.bias"])),
    "learned_soup": lambda f: lambda ensemble, base: f(ensemble, slope, steps=10),
    "soft_merge": lambda f: lambda ensemble, base: f(ensemble, slope, steps=10),
    "manifold_mixing": lambda f: lambda ensemble, base: f(ensemble, squares, slope, steps=3),
    "evolved_soup": lambda f: lambda ensemble, base: f(ensemble, squares, generations=1),
    "amortised": lambda f: lambda ensemble, base: f(ensemble),
    "sparse_soup": lambda f: lambda ensemble, base: leafwise(ensemble, f()),
    "instant_soup": lambda f: lambda ensemble, base: leafwise(ensemble, f(), base=base),
    "fisher": lambda f: lambda e, base: leafwise(e, f([{"a.weight": p["a.weight"].double() ** 2} for p in e])),
    "regmean": lambda f: lambda e, base: leafwise(e, f([gram(p["a.weight"]) for p in e])),
    "regmean_plus": lambda f: lambda e, base: f(e, lambda p, k: gram(list(e)[k]["a.weight"] * p["a.bias"][:5])),
    "adamerging": lambda f: lambda ensemble, base: f(ensemble, slope, base=base, steps=10, rate=0.05),
    "merge_experts": lambda f: lambda ensemble, base: one_expert(f, ensemble),
    "add_adapters": lambda f: lambda ensemble, base: f(base, steps(ensemble, base)),
    "adapted": lambda f: lambda e, base: leafwise(f(base, steps(e, base), e.weights), linear()),
    "sum_adapters": lambda f: lambda ensemble, base: onto(base, f(steps(ensemble, base))),
    "extract_adapter": lambda f: (
        lambda e, base: onto(base, f(base, {"a.weight": leafwise(e, linear())["a.weight"]}, rank=5, names=["a.weight"]))
    ),
    "zip_trunk": lambda f: lambda e, base: f(Hidden(), e, [images(8)[:, 0, 0]], own=["scale"], alpha=1.0).params(0),
    "zipit": lambda f: lambda ensemble, base: f(Hidden(), ensemble, [images(8)[:, 0, 0]], alpha=1.0),
}
"""How a merge is called: (ensemble, base) -> params. A leafwise method gives a rule, others take the ensemble."""

ALIGNERS: dict[str, Callable[[Callable[..., Ensemble], nn.Module, Ensemble], Ensemble]] = {
    "refresh": lambda f, model, ensemble: f(model, ensemble, [images(8), images(4)]),
    "rebasin": lambda f, model, ensemble: f(model, ensemble, [images(8)], reference=params_of(model)),
}

UNLIKE: dict[str, Callable[[nn.Module], Ensemble]] = {
    "refresh": lambda model: like(model, 4),
    "rebasin": lambda model: stack(ends(model, 4)),
}
"""Four members that each aligner changes, all or all but the first."""

POOLS: dict[str, Callable[[int, int, int], Tensor]] = {
    "mean_probability": lambda k, n, c: _normal(k, n, c).log_softmax(-1),
    "mean_logit": lambda k, n, c: _normal(k, n, c).log_softmax(-1),
    "mean": lambda k, n, c: _normal(k, n, c),
    "mean_bernoulli": lambda k, n, c: _normal(k, n, c),
    "vote": lambda k, n, c: _normal(k, n, c),
    "median": lambda k, n, c: _normal(k, n, c),
    "median_probability": lambda k, n, c: _normal(k, n, c).log_softmax(-1),
    "trimmed": lambda k, n, c: _normal(k, n, c),
    "trimmed_probability": lambda k, n, c: _normal(k, n, c).log_softmax(-1),
    "consistency": lambda k, n, c: _normal(k, n, c).log_softmax(-1),
    "mean_gaussian": lambda k, n, c: _normal(k, n, 2) * torch.tensor([1.0, 0.0]) + _normal(k, n, 2).square(),
    "mean_quantiles": lambda k, n, c: _normal(k, n, c),
    "median_quantiles": lambda k, n, c: _normal(k, n, c),
}
"""Outputs [K, N, C] of the kind that each pool gives back, so that one member can be its own mean; pairs have C = 2."""

Pool = Callable[[Tensor], Tensor]

FITS: dict[str, Callable[[Callable[..., Any], Tensor, Tensor], Pool]] = {
    "fit_log_linear": lambda f, x, y: f(x, y),
    "fit_linear": lambda f, x, y: f(x, y),
    "fit_extremised": lambda f, x, y: f(x, y, base=[0.4, 0.3, 0.2, 0.1]),
    "fit_gate": lambda f, x, y: f(x, y),
    "fit_fusion": lambda f, x, y: f(x, y),
    "fit_cascade": lambda f, x, y: f(x, y),
    "fit_quantile_weights": lambda f, x, y: f(x, y.double() - 2, torch.tensor([0.2, 0.4, 0.6, 0.8]), steps=20),
    "greedy": lambda f, x, y: weighted(f(x, y, rounds=20)),
    "zpe": lambda f, x, y: weighted(f(x, x.flip(1)[:, ::2] * 1.5)),
}
"""How a pool is fitted on outputs [K, N, 4] and targets [N]."""


def weighted(weights: Tensor) -> Pool:
    """The mean probability with these weights."""
    return lambda outputs: mean_probability(outputs, weights)


def rows(verb: str, law: str | None = None) -> list[Method]:
    """The methods of a verb that keep a law."""
    return [method for method in CATALOGUE if method.verb == verb and (law is None or law in method.laws)]


def _normal(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(11), dtype=torch.float64)
