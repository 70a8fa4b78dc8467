"""On a quadratic loss the stationary variance is known; a wrong factor of N is seen."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from pluria.train import SGHMC, SGLD

N, CURVATURE, LR = 50, 2.0, 0.1


def variance(optimizer: SGHMC, weight: nn.Parameter, burn: int = 200, looks: int = 40) -> float:
    """Of many copies of one weight on the mean loss CURVATURE w^2 / 2."""
    found = []
    for step in range(burn + 5 * looks):
        optimizer.zero_grad()
        weight.grad = CURVATURE * weight.detach()
        optimizer.step()
        if step >= burn and step % 5 == 0:
            found.append(float(weight.detach().square().mean()))
    return sum(found) / len(found)


def copies() -> nn.Parameter:
    return nn.Parameter(torch.zeros(4000))


def known(friction: float, temperature: float = 1.0) -> float:
    """The stationary variance of the recursion itself, by its Lyapunov equation: no small steps assumed."""
    a = LR * CURVATURE
    push = torch.tensor([[1 - friction, -a], [1 - friction, 1 - a]], dtype=torch.float64)  # (v, w) -> (v, w)
    noise = 2 * LR * friction * temperature / N * torch.ones(2, 2, dtype=torch.float64)
    solved = torch.linalg.solve(torch.eye(4, dtype=torch.float64) - torch.kron(push, push), noise.flatten())
    return float(solved[3])


@pytest.mark.parametrize("temperature", [1.0, 0.1])
def test_sgld_samples_the_known_variance(temperature: float) -> None:
    weight = copies()
    found = variance(SGLD([weight], LR, data_size=N, temperature=temperature), weight)
    # (1 - a)^2 V + 2 lr T / N = V, close to T / (N c) for small steps
    exact = 2 * LR * temperature / N / (1 - (1 - LR * CURVATURE) ** 2)
    assert found == pytest.approx(exact, rel=0.02)
    assert known(1.0, temperature) == pytest.approx(exact)


def test_sghmc_samples_the_known_variance() -> None:
    weight = copies()
    found = variance(SGHMC([weight], LR, data_size=N, friction=0.2), weight)
    assert found == pytest.approx(known(0.2), rel=0.03)
    assert found == pytest.approx(1 / (N * CURVATURE), rel=0.15)


def test_a_second_division_by_n_is_seen() -> None:
    weight = copies()
    wrong = variance(SGLD([weight], LR, data_size=N, temperature=1 / N), weight)
    assert wrong < 0.05 * known(1.0)


def test_without_temperature_it_is_descent_with_momentum() -> None:
    ours, theirs = nn.Parameter(torch.ones(3)), nn.Parameter(torch.ones(3))
    mine = SGHMC([ours], LR, data_size=N, friction=0.1, temperature=0, weight_decay=0.3)
    torchs = torch.optim.SGD([theirs], LR, momentum=0.9, weight_decay=0.3)
    for step in range(5):
        ours.grad = theirs.grad = torch.tensor([1.0, -2.0, 0.5]) * step
        mine.step()
        torchs.step()
    assert torch.allclose(ours, theirs, atol=1e-6)


def test_the_prior_narrows_the_posterior() -> None:
    weight = copies()
    found = variance(SGLD([weight], LR, data_size=N, weight_decay=CURVATURE), weight)
    assert found == pytest.approx(2 * LR / N / (1 - (1 - 2 * LR * CURVATURE) ** 2), rel=0.02)


def test_noise_repeats_after_a_file_and_leaves_the_global_generator() -> None:
    def end(stop: int) -> torch.Tensor:
        weight = nn.Parameter(torch.zeros(5))
        optimizer = SGHMC([weight], LR, data_size=N, key=3)
        for step in range(6):
            if step == stop:
                saved, kept = optimizer.state_dict(), weight.detach().clone()
                weight = nn.Parameter(kept)
                optimizer = SGHMC([weight], 1.0, data_size=1, key=3)
                optimizer.load_state_dict(saved)
            weight.grad = weight.detach().clone()
            optimizer.step()
        return weight.detach()

    before = torch.get_rng_state()
    assert torch.equal(end(-1), end(3))
    assert torch.equal(before, torch.get_rng_state())


def test_a_gradient_that_is_not_finite_is_left_out() -> None:
    one, other = nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(2))
    optimizer = SGLD([one, other], LR, data_size=N)
    one.grad, other.grad = torch.tensor([math.nan, 0.0]), torch.ones(2)
    optimizer.step()
    assert torch.equal(other, torch.ones(2))
    assert optimizer.skipped == 1


@pytest.mark.parametrize(
    "bad",
    [
        {"data_size": 0},
        {"friction": 0.0},
        {"friction": 1.5},
        {"temperature": -1.0},
        {"temperature": math.inf},
        {"lr": 0.0},
    ],
)
def test_bad_numbers(bad: dict[str, float]) -> None:
    given = {"lr": 0.1, "data_size": 10, **bad}
    with pytest.raises(ValueError, match="got"):
        SGHMC([nn.Parameter(torch.zeros(1))], **given)  # type: ignore[arg-type]
