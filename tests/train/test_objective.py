"""The diversity objective decomposes, EnsLoss draws valid losses, distillation is minimal at the mean."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from pluria.numbers.key import Key
from pluria.train import decompose, distillation_loss, diversity_loss, ens_loss, loss_slopes


def logits(members: int = 4, rows: int = 12, classes: int = 3) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    outputs = torch.randn(members, rows, classes, generator=generator, dtype=torch.float64)
    return outputs, torch.randint(classes, (rows,), generator=generator)


def test_the_decomposition_by_double_loop() -> None:
    outputs, targets = logits()
    probs = outputs.softmax(-1)
    members = -sum(math.log(probs[k, n, targets[n]]) for k in range(4) for n in range(12)) / 48
    ensemble = -sum(math.log(sum(probs[k, n, targets[n]] for k in range(4)) / 4) for n in range(12)) / 12
    found = decompose(outputs, targets)
    assert float(found.members) == pytest.approx(members, abs=1e-12)
    assert float(found.ensemble) == pytest.approx(ensemble, abs=1e-12)
    assert float(found.gap) == pytest.approx(members - ensemble, abs=1e-12)
    assert found.gap > 0
    for gamma in (-1.0, 0.0, 0.5, 1.0):
        assert float(diversity_loss(outputs, targets, gamma=gamma)) == pytest.approx(
            members - gamma * (members - ensemble)
        )


def test_equal_members_have_no_gap_and_gamma_beyond_one_is_refused() -> None:
    outputs, targets = logits()
    same = outputs[:1].expand(4, -1, -1)
    assert float(decompose(same, targets).gap) == pytest.approx(0, abs=1e-14)
    with pytest.raises(ValueError, match="gamma is at most 1"):
        diversity_loss(outputs, targets, gamma=1.2)


@pytest.mark.parametrize("step", range(5))
def test_slopes_are_those_of_a_convex_calibrated_loss(step: int) -> None:
    margins = 3 * torch.randn(400, generator=torch.Generator().manual_seed(step))
    slopes = loss_slopes(margins, key=Key(1), step=step)
    ordered = slopes[margins.argsort()]
    assert bool((ordered.diff() >= -1e-7).all())
    assert bool((slopes < 0).all())
    assert bool((slopes >= -1).all())
    assert not torch.equal(slopes, loss_slopes(margins, key=Key(1), step=step + 1))


def test_a_slope_that_grows_is_seen() -> None:
    margins = torch.tensor([-1.0, 0.0, 1.0])
    assert bool((loss_slopes(margins, key=Key(0)).diff() >= 0).all())
    assert not bool((loss_slopes(margins, key=Key(0)).flip(0).diff() >= 0).all())


@pytest.mark.parametrize("classes", [2, 3])
def test_the_rule_of_bayes_is_recovered(classes: int) -> None:
    generator = torch.Generator().manual_seed(2)
    centres = torch.tensor([[2.0, 0.0], [-2.0, 0.0], [0.0, 3.0]])[:classes]
    y = torch.randint(classes, (1500,), generator=generator)
    x = centres[y] + torch.randn(1500, 2, generator=generator)
    model = nn.Linear(2, 1 if classes == 2 else classes)
    nn.init.zeros_(model.weight)
    nn.init.zeros_(model.bias)
    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
    for step in range(200):
        optimizer.zero_grad()
        output = model(x)
        # Class 0 lies on the right: the positive one of two.
        value = ens_loss(output[:, 0], 1 - y, step=step) if classes == 2 else ens_loss(output, y, step=step)
        torch.autograd.backward(value)
        optimizer.step()
    bayes = torch.cdist(x, centres).argmin(1)
    with torch.no_grad():
        found = (model(x)[:, 0] <= 0).long() if classes == 2 else model(x).argmax(1)
    assert float((found == bayes).float().mean()) > 0.97


def test_gradients_of_two_classes_by_hand() -> None:
    scores = torch.tensor([0.5, -2.0, 3.0], requires_grad=True)
    targets = torch.tensor([1, 0, 0])
    torch.autograd.backward(ens_loss(scores, targets, key=3, step=4))
    slopes = loss_slopes(torch.tensor([0.5, 2.0, -3.0]), key=Key(3), step=4)
    assert torch.allclose(scores.grad, slopes * torch.tensor([1.0, -1.0, -1.0]) / 3)  # type: ignore[arg-type]


def test_distillation_is_minimal_at_the_mean_and_scales_with_the_temperature() -> None:
    outputs, _ = logits()
    for temperature in (1.0, 3.0):
        mean = (outputs / temperature).softmax(-1).mean(0).log() * temperature
        assert float(distillation_loss(mean, outputs, temperature=temperature)) == pytest.approx(0, abs=1e-12)
        other = outputs[0]
        p, q = ((each / temperature).softmax(-1) for each in (mean, other))
        wanted = temperature**2 * float((p * (p / q).log()).sum(-1).mean())
        assert float(distillation_loss(other, outputs, temperature=temperature)) == pytest.approx(wanted, abs=1e-10)
    for bad in (0, math.inf, math.nan):
        with pytest.raises(ValueError, match="a temperature is positive"):
            distillation_loss(outputs[0], outputs, temperature=bad)


def test_shapes_that_mean_nothing_to_a_random_loss() -> None:
    for scores, targets in (((6, 1), (6,)), ((6,), (6, 1)), ((6,), (5,)), ((2, 6, 3), (2, 6))):
        with pytest.raises(ValueError, match=r"logits are \[N\] on targets of two classes"):
            ens_loss(torch.zeros(scores), torch.zeros(targets, dtype=torch.int64))
