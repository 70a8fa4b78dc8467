"""The minimum under bounds: a quadratic by hand, a slow projected descent, and a function with a wall."""

import pytest
import torch

from pluria.pool.newton import nonnegative_minimum


def quadratic(matrix, centre):
    matrix, centre = torch.tensor(matrix).double(), torch.tensor(centre).double()
    return lambda x: (float((x - centre) @ matrix @ (x - centre)) / 2, matrix @ (x - centre), matrix)


def start(count):
    return torch.ones(count, dtype=torch.float64)


def test_a_free_minimum_is_met():
    found = nonnegative_minimum(start(2), quadratic([[2.0, 1.0], [1.0, 3.0]], [0.5, 4.0]))
    assert found.tolist() == pytest.approx([0.5, 4.0])


def test_a_bound_that_holds_moves_the_others():
    # With x_1 = 0 the gradient 3 (x_2 - 2) + 1 (0 + 1) is zero at 5/3.
    found = nonnegative_minimum(start(2), quadratic([[2.0, 1.0], [1.0, 3.0]], [-1.0, 2.0]))
    assert found.tolist() == pytest.approx([0.0, 5 / 3])
    assert nonnegative_minimum(start(2), quadratic([[1.0, 0.0], [0.0, 1.0]], [-1.0, -2.0])).tolist() == [0.0, 0.0]


@pytest.mark.parametrize("seed", range(3))
def test_equals_a_slow_descent(seed):
    generator = torch.Generator().manual_seed(seed)
    root = torch.randn(6, 6, generator=generator).double()
    slopes = quadratic((root @ root.T + 0.1 * torch.eye(6)).tolist(), torch.randn(6, generator=generator).tolist())
    slow = start(6)
    for _ in range(20_000):
        slow = (slow - 0.02 * slopes(slow)[1]).clamp_min(0)
    assert nonnegative_minimum(start(6), slopes).tolist() == pytest.approx(slow.tolist(), abs=1e-6)


def test_a_flat_direction_is_left_alone():
    found = nonnegative_minimum(start(2), quadratic([[1.0, 1.0], [1.0, 1.0]], [3.0, 3.0]))
    assert found.tolist() == pytest.approx([3.0, 3.0])


def test_steps_over_a_wall_are_cut():
    def slopes(x):  # x - log x, with the minimum 1, infinite at zero
        return float(x - x.log()), 1 - 1 / x, (1 / x**2)[:, None]

    assert nonnegative_minimum(torch.tensor([50.0]).double(), slopes).item() == pytest.approx(1.0, abs=1e-9)
