"""The gap between soup and ensemble: both terms against brute force, and the limit of small steps."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call, jvp

from pluria.check import Choice, soup_gap
from pluria.core.ensemble import Ensemble, stack
from pluria.core.params import params_of
from pluria.zoo import network

BETA = 1.3
WEIGHTS = torch.tensor([0.2, 0.3, 0.5], dtype=torch.float64)
NAMES = ["one member, on average", "soup", "ensemble, mean logit", "ensemble, mean probability"]


def smooth() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3)).double()


def around(model: nn.Module, size: float) -> Ensemble:
    draw = torch.Generator().manual_seed(1)
    own = params_of(model)
    noise = [{n: torch.randn(v.shape, generator=draw, dtype=v.dtype) for n, v in own.items()} for _ in range(3)]
    return stack([{n: v + size * one[n] for n, v in own.items()} for one in noise]).reweight(WEIGHTS)


def rows() -> list[tuple[Tensor, Tensor]]:
    draw = torch.Generator().manual_seed(2)
    x = torch.randn(40, 4, generator=draw, dtype=torch.float64)
    y = torch.randint(0, 3, (40,), generator=draw)
    return [(x[:30], y[:30]), (x[30:], y[30:])]


def by_name(found: tuple[Choice, ...]) -> dict[str, Choice]:
    return {choice.what: choice for choice in found}


def brute(model: nn.Module, ensemble: Ensemble) -> tuple[float, float, float]:
    """The three terms by forward derivatives, example by example."""
    members = [ensemble.params(member) for member in ensemble.members]
    mean = {n: sum(w * m[n] for w, m in zip(WEIGHTS, members, strict=True)) for n in members[0]}
    x, y = (torch.cat(part) for part in zip(*rows(), strict=True))
    total = [0.0, 0.0, 0.0]
    for weight, member in zip(WEIGHTS.tolist(), members, strict=True):
        delta = {n: member[n] - mean[n] for n in mean}

        def slopes_at(params: dict[str, Tensor], d: dict[str, Tensor] = delta) -> tuple[Tensor, Tensor]:
            return jvp(lambda own: BETA * functional_call(model, own, (x,)), (params,), (d,))  # type: ignore[no-any-return]

        def bend(params: dict[str, Tensor], d: dict[str, Tensor] = delta) -> Tensor:
            loss = lambda own: nn.functional.cross_entropy(BETA * functional_call(model, own, (x,)), y)  # noqa: E731
            return jvp(loss, (params,), (d,))[1]  # type: ignore[no-any-return]

        total[0] -= weight / 2 * float(jvp(bend, (mean,), (delta,))[1])
        logits, slopes = slopes_at(mean)
        for chosen, s, target in zip(logits.softmax(-1).tolist(), slopes.tolist(), y.tolist(), strict=True):
            centre = math.fsum(a * b for a, b in zip(chosen, s, strict=True))
            variance = math.fsum(a * (b - centre) ** 2 for a, b in zip(chosen, s, strict=True))
            total[1] += weight / 2 * variance / len(y)
            total[2] += weight / 2 * ((s[target] - centre) ** 2 - variance) / len(y)
    return total[0], total[1], total[2]


@pytest.mark.filterwarnings("ignore:`torch.jit.script`:DeprecationWarning")  # torch's own forward derivatives use it
def test_each_term_is_what_forward_derivatives_give() -> None:
    model = smooth()
    ensemble = around(model, 0.2)
    terms = by_name(soup_gap(model, ensemble, rows(), inverse_temperature=BETA))["ensemble, mean logit"].terms
    assert terms is not None
    assert [terms.curvature, terms.disagreement, terms.extra] == pytest.approx(brute(model, ensemble), rel=1e-4)
    assert abs(terms.extra) > 0.01 * terms.disagreement


@pytest.mark.parametrize("pool", ["mean logit", "mean probability"])
def test_the_prediction_is_right_in_the_limit_of_small_steps(pool: str) -> None:
    errors = []
    for size in (0.08, 0.04, 0.02):
        found = by_name(soup_gap(smooth(), around(smooth(), size), rows(), inverse_temperature=BETA))
        choice = found[f"ensemble, {pool}"]
        assert choice.predicted is not None
        errors.append(abs(choice.predicted - choice.gap) / abs(choice.gap))
    # The gap is of second order and the error of third: half the step, half the relative error.
    assert errors[2] < 0.1
    assert errors[2] < 0.7 * errors[1] < 0.49 * errors[0]


def test_losses_are_those_of_the_pooled_outputs() -> None:
    model = smooth()
    ensemble = around(model, 0.5)
    found = by_name(soup_gap(model, ensemble, rows(), inverse_temperature=BETA))
    x, y = (torch.cat(part) for part in zip(*rows(), strict=True))
    with torch.no_grad():
        outputs = torch.stack([BETA * functional_call(model, params, (x,)) for params in ensemble])
    shares = torch.tensordot(WEIGHTS, outputs.softmax(-1), 1)
    assert list(found) == NAMES
    assert found[NAMES[3]].loss == pytest.approx(float(nn.functional.nll_loss(shares.log(), y)), rel=1e-12)
    mean = torch.tensordot(WEIGHTS, outputs, 1)
    assert found[NAMES[2]].loss == pytest.approx(float(nn.functional.cross_entropy(mean, y)), rel=1e-12)
    assert found[NAMES[2]].gap == pytest.approx(found["soup"].loss - found[NAMES[2]].loss)
    assert [found[name].forwards for name in NAMES] == [1, 1, 3, 3]


def test_a_shared_trunk_lies_between_soup_and_ensemble() -> None:
    model = smooth()
    ensemble = around(model, 0.05)
    every = by_name(soup_gap(model, ensemble, rows(), heads=["*"]))
    for pool in ("mean logit", "mean probability"):
        assert every[f"shared trunk, {pool}"].loss == pytest.approx(every[f"ensemble, {pool}"].loss, rel=1e-12)
    part = by_name(soup_gap(model, ensemble, rows(), heads=["4.*"]))["shared trunk, mean probability"]
    assert (part.forwards, part.heads) == (1, 3)
    assert part.predicted == pytest.approx(part.gap, rel=0.1)
    assert part.gap != pytest.approx(every["ensemble, mean probability"].gap, rel=0.1)
    # A linear head over a trunk that is shared: the mean of its logits is the soup.
    assert by_name(soup_gap(model, ensemble, rows(), heads=["4.*"]))["shared trunk, mean logit"].gap == pytest.approx(
        0, abs=1e-12
    )


def test_batch_norm_and_counts_are_no_trouble() -> None:
    model = network("small_cnn")
    two = stack([params_of(model), params_of(network("small_cnn", seed=1))])
    found = by_name(soup_gap(model, two, [(torch.randn(6, 1, 8, 8), torch.arange(6))]))
    assert all(math.isfinite(choice.loss) for choice in found.values())


def test_mistakes_are_told() -> None:
    model = smooth()
    ensemble = around(model, 0.1)
    with pytest.raises(ValueError, match="these have no targets"):
        soup_gap(model, ensemble, [x for x, _ in rows()])
    with pytest.raises(ValueError, match=r"no tensor is called 'head\.\*'; there are 2\.weight"):
        soup_gap(model, ensemble, rows(), heads=["head.*"])
    with pytest.raises(ValueError, match=r"are positive; got 0 and 0\.001"):
        soup_gap(model, ensemble, rows(), inverse_temperature=0)
