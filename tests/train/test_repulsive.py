"""Particles on a known Gaussian: plain ascent collapses, repulsion keeps the published variances."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from pluria.train import repel, repulsive

TARGET = torch.tensor([1.0, 4.0], dtype=torch.float64)


def settled(flow: str | None, steps: int = 1500) -> Tensor:
    """50 particles after following a flow on N(0, diag(1, 4))."""
    points = 2 * torch.randn(50, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for _ in range(steps):
        scores = -points / TARGET
        points = points + 0.05 * (scores if flow is None else repulsive(points, scores, flow=flow))  # type: ignore[arg-type]
    return points


def test_without_repulsion_all_collapse() -> None:
    assert float(settled(None).var(0).max()) < 1e-3


@pytest.mark.parametrize(("flow", "wanted"), [("svgd", (0.88, 3.48)), ("sge", (0.90, 3.55))])
def test_the_known_variances(flow: str, wanted: tuple[float, float]) -> None:
    found = settled(flow, 3000 if flow == "svgd" else 1500)
    assert found.var(0, correction=0).tolist() == pytest.approx(wanted, rel=0.05)
    assert float(found.mean(0).abs().max()) < 0.1


def test_a_density_estimate_keeps_four_tenths() -> None:
    found = settled("kde").var(0, correction=0) / TARGET
    assert bool((found > 0.4).all())


def test_directions_by_double_loop() -> None:
    points = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 2.0]], dtype=torch.float64)
    scores = torch.tensor([[1.0, 2.0], [0.5, -1.0], [0.0, 1.0]], dtype=torch.float64)
    apart = torch.cdist(points, points).square()
    h = float(apart[~torch.eye(3, dtype=torch.bool)].median()) / (2 * float(torch.log(torch.tensor(4.0))))
    k = torch.exp(-apart / (2 * h))
    for i in range(3):
        by_hand = sum(k[j, i] * scores[j] + (points[i] - points[j]) / h * k[j, i] for j in range(3)) / 3
        assert torch.allclose(repulsive(points, scores, flow="svgd")[i], by_hand, atol=1e-6)  # type: ignore[arg-type]


def test_function_space_pulls_the_direction_back() -> None:
    outputs = torch.randn(3, 4, 2, generator=torch.Generator().manual_seed(1), requires_grad=True)
    scores = torch.randn(3, 4, 2, generator=torch.Generator().manual_seed(2))
    torch.autograd.backward(repel(outputs, scores))
    wanted = -repulsive(outputs.detach().flatten(1), scores.flatten(1))
    assert outputs.grad is not None
    assert torch.allclose(outputs.grad.flatten(1), wanted)


def test_particles_on_one_point_and_mistakes() -> None:
    same = torch.ones(3, 2)
    assert torch.isfinite(repulsive(same, same)).all()
    with pytest.raises(ValueError, match="two particles or more"):
        repulsive(same[:1], same[:1])
    with pytest.raises(ValueError, match="'svgd', 'kde' or 'sge'"):
        repulsive(same, same, flow="push")  # type: ignore[arg-type]
