"""Soup, ensemble, or part of each: what they lose on the same rows, and what an expansion around the soup predicts.

With theta the mean of the members, delta_k = theta_k - theta, L the loss at theta, p the probabilities there, f the
logits and beta the inverse temperature:

    curvature      -1/2 sum_k w_k d2L[delta_k]                              a loss that is bent speaks for the ensemble
    disagreement    1/2 sum_k w_k beta^2 E Var_p(Df delta_k)                answers that differ speak for the soup
    probability     1/2 sum_k w_k E[(beta Df_y delta_k - E_p beta Df delta_k)^2 - beta^2 Var_p(Df delta_k)]

    L(soup) - L(mean logit) ~ curvature + disagreement       L(soup) - L(mean probability) ~ the sum of all three

The first two often nearly cancel, so both are reported. Far from the members the expansion says little: its error is of
third order in delta. Derivatives are central differences in float64. Source of the two-member form: Wortsman et al.,
"Model soups", ICML 2022, section 4.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import Tensor, nn

from pluria.core.ensemble import Ensemble
from pluria.core.model import tensors, ties, working_copy
from pluria.core.params import Params, check_fit
from pluria.predict import first, logits
from pluria.predict.batches import Batches, call, moved, place, refuse_unstable

STEP = 1e-3
"""Of the central differences, in units of a member's distance from the mean."""

HELD = "one member, on average", "soup", "ensemble, mean logit", "ensemble, mean probability"


@dataclass(frozen=True)
class Terms:
    """The terms of the prediction; `logit` and `probability` are the predicted gaps of the two pools."""

    curvature: float
    disagreement: float
    extra: float

    @property
    def logit(self) -> float:
        """Predicted loss of the soup less that of the mean logit."""
        return self.curvature + self.disagreement

    @property
    def probability(self) -> float:
        """Predicted loss of the soup less that of the mean probability."""
        return self.logit + self.extra


@dataclass(frozen=True)
class Choice:
    """One way to answer: its mean negative log-likelihood, the soup's loss less its own, measured and predicted.

    forwards   whole forwards an example; `heads` beside it are those parts alone that are run once for each member
    """

    what: str
    forwards: int
    heads: int
    loss: float
    gap: float
    predicted: float | None = None
    terms: Terms | None = None


def soup_gap(
    model: nn.Module,
    ensemble: Ensemble,
    batches: Batches,
    *,
    heads: Sequence[str] = (),
    inverse_temperature: float = 1.0,
    step: float = STEP,
    inputs: Callable[[Any], tuple[Any, Tensor | None]] = first,
    output: Callable[[Any], Tensor] = logits,
) -> tuple[Choice, ...]:
    """What a member, the soup, the ensemble and, given `heads`, a shared trunk with the members' own heads lose.

    batches               inputs with targets, classes `[N]`
    heads                 patterns of names of tensors that stay each member's own: `["head.*"]`
    inverse_temperature   beta, what logits are multiplied by
    step                  of the central differences

    All is computed in float64 with one copy of the model; a member is run three times, six with heads. Raises
    ValueError for rows without targets, for a pattern that fits no tensor, and for numbers that are not positive.
    """
    if not (inverse_temperature > 0 and step > 0):
        raise ValueError(f"inverse temperature and step are positive; got {inverse_temperature} and {step}")
    refuse_unstable(batches)
    check_fit(ensemble.outline(), tensors(model), what="the ensemble")
    run = _Run(model, batches, inputs, output, inverse_temperature)
    members = [_wide(ensemble.params(member)) for member in ensemble.members]
    mean = {name: sum(w * m[name] for w, m in zip(ensemble.weights, members, strict=True)) if value.is_floating_point()
            else value for name, value in members[0].items()}  # fmt: skip
    base = run(mean)
    soup = run.loss(base)
    outputs = torch.stack([run(member) for member in members])
    alone = float(ensemble.weights @ torch.tensor([run.loss(one) for one in outputs], dtype=torch.float64))
    found = [Choice(HELD[0], 1, 0, alone, soup - alone), Choice(HELD[1], 1, 0, soup, 0.0)]
    around = run.terms(base, mean, members, ensemble.weights, step)
    found += _pooled(run, soup, outputs, ensemble.weights, around, ("ensemble", len(ensemble), 0))
    if heads:
        own = _own(model, heads)
        mixed = [{name: member[name] if name in own else value for name, value in mean.items()} for member in members]
        around = run.terms(base, mean, mixed, ensemble.weights, step)
        outputs = torch.stack([run(one) for one in mixed])
        found += _pooled(run, soup, outputs, ensemble.weights, around, ("shared trunk", 1, len(ensemble)))
    return tuple(found)


def _pooled(
    run: _Run, soup: float, outputs: Tensor, weights: Tensor, around: Terms, named: tuple[str, int, int]
) -> Iterator[Choice]:
    what, forwards, heads = named
    logit = run.loss(torch.tensordot(weights, outputs, 1))
    yield Choice(f"{what}, mean logit", forwards, heads, logit, soup - logit, around.logit, around)
    shares = (run.beta * outputs).log_softmax(-1) + weights.log()[:, None, None]
    mean = run.loss(shares.logsumexp(0) / run.beta)
    yield Choice(f"{what}, mean probability", forwards, heads, mean, soup - mean, around.probability, around)


class _Run:
    """Outputs `[N, C]` in float64 of a model with other tensors, and what is made of them."""

    def __init__(self, model: nn.Module, batches: Batches, inputs: Any, output: Any, beta: float) -> None:
        self.twin = working_copy(model, dtype=torch.float64)
        self.batches, self.inputs, self.output, self.beta = batches, inputs, output, beta
        targets = [inputs(batch)[1] for batch in batches]
        if not targets or any(one is None for one in targets):
            raise ValueError("the gap is measured on batches of inputs and targets; these have no targets")
        self.targets = torch.cat([torch.as_tensor(one).cpu().long() for one in targets])

    def __call__(self, params: Params) -> Tensor:
        with torch.no_grad():
            for name, value in tensors(self.twin).items():
                value.copy_(params[name])
            rows = []
            for batch in self.batches:
                x = moved(self.inputs(batch)[0], place(self.twin), torch.float64)
                rows.append(self.output(call(self.twin, x)).to("cpu", torch.float64))
        return torch.cat(rows)

    def loss(self, outputs: Tensor) -> float:
        """Mean negative log-likelihood at this temperature."""
        return float(torch.nn.functional.cross_entropy(self.beta * outputs, self.targets))

    def terms(self, base: Tensor, mean: Params, members: Sequence[Params], weights: Tensor, step: float) -> Terms:
        """The terms of the expansion around the mean whose outputs are `base`."""
        chosen = (self.beta * base).softmax(-1)
        sums = torch.zeros(3, dtype=torch.float64)
        for member, weight in zip(members, weights, strict=True):
            ahead, behind = (self(_moved(mean, member, sign * step)) for sign in (1, -1))
            bend = (self.loss(ahead) - 2 * self.loss(base) + self.loss(behind)) / step**2
            slope = self.beta * (ahead - behind) / (2 * step)
            centred = slope - (chosen * slope).sum(-1, keepdim=True)
            spread = (chosen * centred.square()).sum(-1)
            own = centred.gather(-1, self.targets[:, None]).squeeze(-1).square()
            sums += weight / 2 * torch.stack([torch.tensor(-bend), spread.mean(), (own - spread).mean()])
        return Terms(*sums.tolist())


def _moved(mean: Params, member: Params, share: float) -> Params:
    return {n: v + share * (member[n] - v) if v.is_floating_point() else v for n, v in mean.items()}


def _wide(params: Params) -> Params:
    return {n: v.to(torch.float64) if v.is_floating_point() else v for n, v in params.items()}


def _own(model: nn.Module, heads: Sequence[str]) -> set[str]:
    names = ties(model)
    for pattern in heads:
        if not any(fnmatchcase(name, pattern) for name in names):
            raise ValueError(f"no tensor is called {pattern!r}; there are {', '.join(list(names)[-4:])}, ...")
    return {name for name in names if any(fnmatchcase(name, pattern) for pattern in heads)}
