"""The small network of the estimators and its losses."""

import pytest
import torch
from torch import nn

from pluria.wrap.small import Standardise, cross_entropy, moments, squared_error, untrained


def test_moments_count_rows_by_weight() -> None:
    values = torch.tensor([[1.0, 1e9], [2.0, 1e9], [4.0, 1e9]])
    mean, std = moments(values, torch.tensor([2.0, 0.0, 1.0]))
    again = values[[0, 0, 2]]
    torch.testing.assert_close(mean, again.mean(0))
    torch.testing.assert_close(std, torch.tensor([again[:, 0].std(unbiased=False), 1.0]))  # a constant has 1


def test_standardise_and_back() -> None:
    x = torch.tensor([[1.0, 10.0], [3.0, 30.0]])
    mean, std = moments(x, torch.ones(2))
    straight = Standardise(mean, std)(x)
    assert straight.tolist() == [[-1, -1], [1, 1]]
    assert torch.equal(Standardise(mean, std, undo=True)(straight), x)


def test_the_network_takes_rows_as_they_are() -> None:
    x = torch.tensor([[1e9], [1e9 + 1]], dtype=torch.float64)
    inputs, targets = moments(x, torch.ones(2)), (torch.tensor([5.0]), torch.tensor([2.0]))
    network = untrained(inputs, 1, hidden=(3,), seed=1, undo=targets)
    plain = untrained(inputs, 1, hidden=(3,), seed=1, undo=None)
    unit = torch.tensor([[-1.0], [1.0]], dtype=torch.float64)
    torch.testing.assert_close(plain(x), plain[1](unit))
    torch.testing.assert_close(network(x), plain(x) * 2 + 5)
    assert {value.dtype for value in network.state_dict().values()} == {torch.float64}
    assert not torch.equal(network[1].head.weight, untrained(inputs, 1, hidden=(3,), seed=2, undo=None)[1].head.weight)


def test_losses_by_hand() -> None:
    x, weights = torch.tensor([[1.0], [2.0]]), torch.tensor([0.5, 1.5])
    network = nn.Linear(1, 2, bias=False)
    nn.init.constant_(network.weight, 1.0)  # both classes equal: log 2 a row
    assert cross_entropy(x, torch.tensor([0, 1]), weights)(network, torch.tensor([0, 1])).item() == pytest.approx(
        torch.tensor(2.0).log().item()
    )
    y, std = torch.tensor([[1.0, 3.0], [2.0, 0.0]]), torch.tensor([1.0, 2.0])
    # errors (0, -2) and (0, 2); over std (0, 1) each; times 0.5 and 1.5; mean of four numbers
    assert squared_error(x, y, weights, std)(network, torch.tensor([0, 1])).item() == pytest.approx(0.5)
    assert squared_error(x, y, weights, std)(network, torch.tensor([1])).item() == pytest.approx(0.75)
