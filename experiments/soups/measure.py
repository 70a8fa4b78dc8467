"""Networks, rows and figures of all three parts: digits of scikit-learn, a perceptron, NLL as it is and tempered."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.func import functional_call

from pluria.core.ensemble import Ensemble
from pluria.core.params import Params
from pluria.pool import fit_temperature, mean_probability
from pluria.score import error, nll
from pluria.zoo.mlp import mlp

Figures = dict[str, float]
HIDDEN = (64, 64)


@dataclass(frozen=True)
class Rows:
    """Inputs [N, 64] in 0..1 and classes [N]."""

    x: Tensor
    y: Tensor

    def take(self, which: Tensor) -> Rows:
        return Rows(self.x[which], self.y[which])


def split(rows: Rows, sizes: tuple[int, ...], seed: int) -> list[Rows]:
    """Rows dealt out at random: as many as `sizes` say, and the rest."""
    order = torch.randperm(len(rows.y), generator=torch.Generator().manual_seed(seed))
    ends = [0, *torch.tensor(sizes).cumsum(0).tolist(), len(order)]
    return [rows.take(order[start:stop]) for start, stop in pairwise(ends)]


def network(seed: int, hidden: tuple[int, ...] = HIDDEN) -> nn.Module:
    """A fresh perceptron."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return mlp(64, 10, hidden=hidden)


def log_probs(model: nn.Module, params: Params, x: Tensor) -> Tensor:
    with torch.no_grad():
        return functional_call(model, dict(params), x).log_softmax(-1)  # type: ignore[no-any-return]


def outputs(model: nn.Module, ensemble: Ensemble, x: Tensor) -> Tensor:
    """Log-probabilities [K, N, C] of all members."""
    return torch.stack([log_probs(model, member, x) for member in ensemble])


def judge(answer: Callable[[Rows], Tensor], held: Rows, test: Rows) -> Figures:
    """NLL, error, and NLL after a temperature that is fitted on the held rows; `answer` gives log-probabilities."""
    z = answer(test)
    tempered = fit_temperature(answer(held), held.y)(z)
    return {
        "nll": float(nll(z, test.y).mean()),
        "error": float(error(z, test.y).mean()),
        "tempered": float(nll(tempered, test.y).mean()),
    }


def judge_params(model: nn.Module, params: Params, held: Rows, test: Rows) -> Figures:
    return judge(lambda rows: log_probs(model, params, rows.x), held, test)


def judge_ensemble(model: nn.Module, ensemble: Ensemble, held: Rows, test: Rows) -> Figures:
    """Mean probability of the members."""
    return judge(lambda rows: mean_probability(outputs(model, ensemble, rows.x), ensemble.weights), held, test)


def loss_on(model: nn.Module, rows: Rows) -> Callable[[Params], float]:
    """Mean NLL of params on some rows."""
    return lambda params: float(nll(log_probs(model, params, rows.x), rows.y).mean())
