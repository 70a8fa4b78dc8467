"""IVON finds the mean-field posterior of Bayesian linear regression, and leaves nothing perturbed behind."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from pluria.core.family import block
from pluria.core.gaussian import Gaussian
from pluria.train import IVON
from train.runs import tied

N, DECAY = 200, 0.1


def regression() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(N, 3, generator=generator, dtype=torch.float64) * torch.tensor([1.0, 2.0, 0.5])
    y = x @ torch.tensor([1.0, -1.0, 2.0], dtype=torch.float64)
    return x, y + torch.randn(N, generator=generator, dtype=torch.float64)


def learned(steps: int = 3500) -> tuple[IVON, nn.Parameter]:
    x, y = regression()
    weight = nn.Parameter(torch.zeros(3, dtype=torch.float64))
    optimizer = IVON([weight], 0.02, data_size=N, weight_decay=DECAY, beta2=0.998, rescale_lr=False)
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = 0.05 * (1 - step / steps)
        with optimizer.sampled():
            torch.autograd.backward((x @ weight - y).square().mean() / 2)
        optimizer.step()
        optimizer.zero_grad()
    return optimizer, weight


def test_mean_and_spread_are_those_of_the_best_diagonal_gaussian() -> None:
    x, y = regression()
    optimizer, weight = learned()
    ridge = torch.linalg.solve(x.T @ x / N + DECAY * torch.eye(3, dtype=torch.float64), x.T @ y / N)
    assert torch.allclose(weight.detach(), ridge, atol=0.02)
    # Mean-field optimum: precision N (diag(X'X / N) + decay), which is not what defines the standard deviation here.
    right = (N * (x.square().mean(0) + DECAY)).rsqrt()
    assert torch.allclose(optimizer.std_of(weight, optimizer.param_groups[0]).detach(), right, rtol=0.1)


def one_step(optimizer: IVON, weight: nn.Parameter, grad: float) -> None:
    with optimizer.sampled():
        torch.autograd.backward((weight * grad).sum())
    optimizer.step()


def test_one_step_by_hand() -> None:
    lr, n, h, d, b1, b2 = 0.1, 10, 0.5, 0.2, 0.9, 0.99
    weight = nn.Parameter(torch.tensor([1.0], dtype=torch.float64))
    optimizer = IVON([weight], lr, data_size=n, hess_init=h, beta1=b1, beta2=b2, weight_decay=d, rescale_lr=False)
    with optimizer.sampled():
        noise = (float(weight.detach()) - 1.0) * math.sqrt(n * (h + d))
        torch.autograd.backward((weight * 3.0).sum())
    optimizer.step()
    curved = 3.0 * noise * math.sqrt(n * (h + d))
    after = b2 * h + (1 - b2) * curved + (1 - b2) ** 2 * (h - curved) ** 2 / (2 * (h + d))
    assert float(optimizer.state[weight]["hess"]) == pytest.approx(after, rel=1e-6)
    assert float(weight.detach()) == pytest.approx(1.0 - lr * (3.0 + d * 1.0) / (after + d), rel=1e-6)


def test_samples_of_one_step_are_averaged_and_gradients_of_one_sample_added() -> None:
    def moved(blocks: int, parts: int) -> Tensor:
        weight = nn.Parameter(torch.ones(4, dtype=torch.float64))
        optimizer = IVON([weight], 0.1, data_size=10, beta2=1 - 1e-12)
        for _ in range(blocks):
            with optimizer.sampled():
                for _ in range(parts):
                    torch.autograd.backward((weight * 3.0 / parts).sum())
        optimizer.step()
        return weight.detach()

    assert torch.allclose(moved(1, 1), moved(1, 4), rtol=1e-12)
    assert torch.allclose(moved(1, 1), moved(3, 1), rtol=1e-9)


def test_an_exception_puts_the_mean_back_and_drops_the_sample() -> None:
    weight = nn.Parameter(torch.ones(4))
    optimizer = IVON([weight], 0.1, data_size=10)
    inside: list[Tensor] = []

    def broken() -> float:
        inside.append(weight.detach().clone())
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        optimizer.step(broken)
    assert not torch.equal(inside[0], torch.ones(4))
    assert torch.equal(weight, torch.ones(4))
    with pytest.raises(RuntimeError, match="no gradients were taken"):
        optimizer.step()
    one_step(optimizer, weight, 1.0)
    with optimizer.sampled(), pytest.raises(RuntimeError, match="sampled already"), optimizer.sampled():
        pass


def test_parameters_without_gradient_stay() -> None:
    used, unused = nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(2))
    optimizer = IVON([used, unused], 0.1, data_size=10)
    one_step(optimizer, used, 1.0)
    assert torch.equal(unused, torch.ones(2))
    assert not torch.equal(used, torch.ones(2))


def test_nan_leaves_the_state_before() -> None:
    weight = nn.Parameter(torch.ones(2))
    optimizer = IVON([weight], 0.1, data_size=10)
    one_step(optimizer, weight, 1.0)
    mean, hess = weight.detach().clone(), optimizer.state[weight]["hess"].clone()
    one_step(optimizer, weight, math.nan)
    assert torch.equal(weight, mean)
    assert torch.equal(optimizer.state[weight]["hess"], hess)
    assert optimizer.skipped == 1


def test_a_huge_gradient_that_is_finite_does_not_end_the_run() -> None:
    weight = nn.Parameter(torch.ones(8))
    optimizer = IVON([weight], 0.1, data_size=50_000)
    for grad in (1.0, 3e17, 1.0, 1.0):
        one_step(optimizer, weight, grad)
        assert torch.isfinite(weight).all()
        assert torch.isfinite(optimizer.std_of(weight, optimizer.param_groups[0])).all()
    assert optimizer.skipped == 1


def test_members_are_not_drawn_around_a_sample() -> None:
    model = tied()
    optimizer = IVON(model.parameters(), 0.1, data_size=10)
    with optimizer.sampled(), pytest.raises(RuntimeError, match="the weights are sampled now"):
        optimizer.ensemble(model)
    optimizer.ensemble(model)


def test_a_sample_that_failed_is_drawn_again() -> None:
    def end(fails: bool) -> Tensor:
        weight = nn.Parameter(torch.ones(4))
        optimizer = IVON([weight], 0.1, data_size=10)
        if fails:
            with pytest.raises(ZeroDivisionError), optimizer.sampled():
                raise ZeroDivisionError
        one_step(optimizer, weight, 1.0)
        return weight.detach()

    assert torch.equal(end(True), end(False))


def test_a_saved_optimiser_goes_on_bit_for_bit() -> None:
    def end(stop: int) -> Tensor:
        weight = nn.Parameter(torch.ones(3))
        optimizer = IVON([weight], 0.1, data_size=10, key=2)
        for step in range(6):
            if step == stop:
                weight, saved = nn.Parameter(weight.detach().clone()), optimizer.state_dict()
                optimizer = IVON([weight], 5.0, data_size=1, key=2)
                optimizer.load_state_dict(saved)
            one_step(optimizer, weight, 1.0 + step)
        return weight.detach()

    assert torch.equal(end(-1), end(3))


def test_autocast_gives_finite_steps() -> None:
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
    optimizer = IVON(model.parameters(), 0.1, data_size=32)
    before = model[0].weight.detach().clone()
    with optimizer.sampled(), torch.autocast("cpu", dtype=torch.bfloat16):
        torch.autograd.backward(model(torch.ones(3, 4)).square().mean())
    optimizer.step()
    assert not torch.equal(before, model[0].weight)
    assert torch.isfinite(model[0].weight).all()


def test_members_are_drawn_from_the_gaussian() -> None:
    model = tied()
    optimizer = IVON(model.parameters(), 0.1, data_size=50, hess_init=2.0, weight_decay=0.5)
    ensemble = optimizer.ensemble(model, members=2000, key=4)
    family = ensemble.families["first.weight"]
    assert family is ensemble.families["second.weight"]
    assert isinstance(family, Gaussian)
    drawn = block(family, ensemble.members, dtype=torch.float64)
    assert torch.allclose(drawn.mean(0), model.first.weight.detach().double(), atol=0.02)
    assert torch.allclose(drawn.std(0), torch.tensor((50 * 2.5) ** -0.5).double(), rtol=0.1)
    with pytest.raises(ValueError, match="no parameter of this network"):
        optimizer.ensemble(tied())


@pytest.mark.parametrize(("name", "value"), [("data_size", 0), ("hess_init", 0.0), ("beta1", 1.0), ("clip", 0.0)])
def test_bad_numbers(name: str, value: float) -> None:
    given = {"lr": 0.1, "data_size": 10, name: value}
    with pytest.raises(ValueError, match="got"):
        IVON([nn.Parameter(torch.zeros(1))], **given)  # type: ignore[arg-type]


def test_frozen_parameters_are_neither_sampled_nor_drawn() -> None:
    model = tied()
    model.norm.requires_grad_(False)
    optimizer = IVON(model.parameters(), 0.1, data_size=10)
    before = model.norm.weight.detach().clone()
    with optimizer.sampled():
        assert torch.equal(model.norm.weight, before)
        torch.autograd.backward(model(torch.ones(4, 3) * torch.arange(4)[:, None]).square().mean())
    optimizer.step()
    ensemble = optimizer.ensemble(model, members=2)
    assert torch.equal(ensemble.params(1)["norm.weight"], before)
    # What has been learned keeps its spread when a network is frozen for evaluation.
    model.requires_grad_(False)
    assert not torch.equal(optimizer.ensemble(model).params(1)["first.weight"], model.first.weight)


def test_scaled_gradients_are_unscaled_inside_the_block() -> None:
    def moved(scaler: torch.amp.GradScaler | None) -> Tensor:
        weight = nn.Parameter(torch.ones(3))
        optimizer = IVON([weight], 0.1, data_size=10)
        with optimizer.sampled():
            value = (weight * 3.0).sum()
            torch.autograd.backward(value if scaler is None else scaler.scale(value))
            if scaler is not None:
                scaler.unscale_(optimizer)
        if scaler is None:
            optimizer.step()
        else:
            scaler.step(optimizer)
            scaler.update()
        return weight.detach()

    assert torch.equal(moved(None), moved(torch.amp.GradScaler("cpu", init_scale=1024.0)))
