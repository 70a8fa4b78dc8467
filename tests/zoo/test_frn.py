import math

import torch

from pluria.zoo.frn import FilterResponseNorm, ThresholdedLinear


def test_norm_equals_a_slow_loop() -> None:
    draw = torch.Generator().manual_seed(1)
    x = torch.randn(2, 3, 4, 5, generator=draw, dtype=torch.float64)
    norm = FilterResponseNorm(3, eps=1e-3).double()
    with torch.no_grad():
        norm.weight.copy_(torch.tensor([0.5, 2.0, -1.0]))
        norm.bias.copy_(torch.tensor([0.0, 1.0, -2.0]))
        fast = norm(x)
    for n in range(2):
        for c in range(3):
            nu2 = sum(x[n, c, i, j].item() ** 2 for i in range(4) for j in range(5)) / 20
            for i in range(4):
                for j in range(5):
                    slow = norm.weight[c].item() * x[n, c, i, j].item() / math.sqrt(nu2 + 1e-3) + norm.bias[c].item()
                    assert abs(fast[n, c, i, j].item() - slow) < 1e-12


def test_an_example_is_normalised_by_itself_and_scale_does_not_matter() -> None:
    x = torch.randn(3, 2, 4, 4, generator=torch.Generator().manual_seed(2))
    norm = FilterResponseNorm(2).train()
    torch.testing.assert_close(norm(x)[1:2], norm(x[1:2]))
    torch.testing.assert_close(norm(x), norm(100 * x), rtol=1e-4, atol=1e-5)
    assert not list(norm.buffers())


def test_threshold_is_a_relu_until_it_has_learned() -> None:
    x = torch.tensor([[[[-1.0, 0.5]], [[-3.0, 4.0]]]])
    unit = ThresholdedLinear(2)
    assert torch.equal(unit(x), x.relu())
    with torch.no_grad():
        unit.tau.copy_(torch.tensor([-2.0, 1.0]))
    assert unit(x).tolist() == [[[[-1.0, 0.5]], [[1.0, 4.0]]]]
