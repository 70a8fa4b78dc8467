import math

import pytest
import torch
from torch import nn

from pluria.zoo.dataset import IGNORED, Dataset
from pluria.zoo.digits import digits
from pluria.zoo.fit import fit
from pluria.zoo.networks import network


def points(targets: list[int]) -> Dataset:
    return Dataset(torch.tensor([[float(i + 1)] for i in range(len(targets))]), torch.tensor(targets), ("a", "b"), "p")


def line() -> nn.Linear:
    model = nn.Linear(1, 2)
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[0.3], [-0.2]]))
        model.bias.zero_()
    return model


def error(model: nn.Module, data: Dataset) -> float:
    with torch.inference_mode():
        wrong = sum((model(x).argmax(dim=1) != y).sum().item() for x, y in data.batches(400))
    return wrong / len(data)


def test_two_full_batch_steps_by_hand() -> None:
    # One batch an epoch, so the order is no matter. Rates: 0.5, then 0.5 / 2 * (1 + cos(pi / 2)) = 0.25.
    data = points([0, 1])
    weight, velocity = torch.tensor([[0.3], [-0.2]], dtype=torch.float64), 0
    bias, drift = torch.zeros(2, dtype=torch.float64), 0
    x, hot = data.inputs.double(), torch.eye(2, dtype=torch.float64)
    for rate in (0.5, 0.5 / 2 * (1 + math.cos(math.pi / 2))):
        residual = ((x @ weight.T + bias).softmax(dim=1) - hot) / 2
        velocity = 0.9 * velocity + residual.T @ x
        drift = 0.9 * drift + residual.sum(dim=0)
        weight, bias = weight - rate * velocity, bias - rate * drift
    trained = fit(line(), data, epochs=2, batch=8, rate=0.5, seed=0, optimiser="sgd")
    torch.testing.assert_close(trained.weight.detach().double(), weight, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(trained.bias.detach().double(), bias, rtol=1e-5, atol=1e-6)


def test_same_seed_same_bits_and_nothing_else_changes() -> None:
    data = digits(split="train").take(slice(0, 120))
    model = network("small_cnn", width=4, dropout=0.2)
    start = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    before = torch.get_rng_state()
    first, second, other = (fit(model, data, epochs=2, batch=50, rate=0.01, seed=seed) for seed in (3, 3, 4))
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(start[name], tensor) for name, tensor in model.state_dict().items())
    assert not first.training
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
    assert any(not torch.equal(a, b) for a, b in zip(first.parameters(), other.parameters(), strict=True))


def test_progress_hears_every_epoch() -> None:
    heard: list[tuple[int, float]] = []
    fit(line(), points([0, 1]), epochs=3, batch=2, rate=0.1, seed=0, progress=lambda *news: heard.append(news))
    assert [epoch for epoch, _ in heard] == [1, 2, 3]
    logits = torch.tensor([[0.3, -0.2], [0.6, -0.4]])
    first = nn.functional.cross_entropy(logits, torch.tensor([0, 1])).item()
    assert heard[0][1] == pytest.approx(first, rel=1e-5)
    assert heard[2][1] < heard[0][1]


def test_ignored_targets_neither_count_nor_ruin() -> None:
    options = {"epochs": 2, "batch": 8, "rate": 0.5, "seed": 0, "optimiser": "sgd"}
    some = fit(line(), points([0, 1, IGNORED]), **options)
    without = fit(line(), points([0, 1]), **options)
    torch.testing.assert_close(some.weight, without.weight)
    none = fit(line(), points([IGNORED, IGNORED]), **options)
    assert torch.equal(none.weight, line().weight)


def test_a_batch_of_one_is_left_out() -> None:
    data = digits(split="train").take(slice(0, 11))
    model = fit(network("small_cnn", size=8, width=2), data, epochs=1, batch=10, rate=0.01, seed=0)
    assert model.norm1.num_batches_tracked.item() == 1


def test_the_small_network_learns_the_digits() -> None:
    model = fit(network("small_cnn"), digits(split="train"), epochs=12, batch=50, rate=0.005, seed=0)
    assert error(model, digits(split="test")) < 0.05


@pytest.mark.parametrize("wrong", [{"epochs": 0}, {"batch": 0}, {"rate": 0.0}, {"rate": float("nan")}])
def test_refusals(wrong: dict[str, float]) -> None:
    options = {"epochs": 1, "batch": 1, "rate": 0.1, "seed": 0} | wrong
    with pytest.raises(ValueError, match="at least 1 and a positive rate"):
        fit(line(), points([0]), **options)
    with pytest.raises(ValueError, match="no optimiser is called 'adma'; did you mean 'adam'"):
        fit(line(), points([0]), epochs=1, batch=1, rate=0.1, seed=0, optimiser="adma")
