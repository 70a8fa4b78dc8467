"""Curvature is exact on a quadratic, CKA knows rotations, planted paths have their signs; orders; permutations."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from pluria.train import (
    cka,
    connectivity,
    diagnose,
    dropped,
    exact_share,
    expansion,
    networks_needed,
    residual,
    sharpness,
)
from pluria.train.permutation import process


class Quadratic(nn.Module):
    """x' H x / 2 in four numbers, with an eigenvalue of 5 and a trace of 9."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(2))
        turn = torch.linalg.qr(torch.randn(4, 4, generator=torch.Generator().manual_seed(0))).Q
        self.hessian = turn @ torch.diag(torch.tensor([5.0, 3.0, 1.0, 0.0])) @ turn.T

    def loss(self) -> Tensor:
        x = torch.cat([self.a, self.b])
        return x @ self.hessian @ x / 2


def test_curvature_of_a_quadratic() -> None:
    model = Quadratic()
    largest, trace = sharpness(model, model.loss, probes=400)
    assert largest == pytest.approx(5.0, rel=0.01)
    assert trace == pytest.approx(9.0, rel=0.03)


def test_cka() -> None:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(500, 4, generator=generator)
    turn = torch.linalg.qr(torch.randn(4, 4, generator=generator)).Q
    assert cka(x, 3 * x @ turn + 1) == pytest.approx(1.0, abs=1e-6)
    assert cka(x, torch.randn(500, 4, generator=generator)) < 0.05


def test_signs_of_planted_paths_and_their_advice() -> None:
    barrier, dip, flat = (torch.tensor([1.0, v, 1.0]) for v in (2.0, 0.4, 1.0))
    assert connectivity(barrier) == pytest.approx(-1.0)
    assert connectivity(dip) == pytest.approx(0.6)
    assert connectivity(flat) == 0
    logits = [torch.randn(50, 3, generator=torch.Generator().manual_seed(i)) for i in range(3)]
    assert "average their answers" in diagnose([flat, barrier], logits, [(2.0, 5.0)]).advice
    assert "undertrained" in diagnose([dip], logits, []).advice
    found = diagnose([flat], [logits[0], logits[0]], [(2.0, 4.0), (4.0, 8.0)])
    assert (found.sharpness, found.trace) == (3.0, 6.0)
    assert found.similarity == pytest.approx(1.0)
    assert "adds little" in found.advice
    with pytest.raises(ValueError, match="two members and a path"):
        diagnose([], logits, [])
    with pytest.raises(ValueError, match=r"losses along a path are finite; got \[1.0, nan, 1.0\]"):
        diagnose([flat, torch.tensor([1.0, float("nan"), 1.0])], logits, [])
    with pytest.raises(ValueError, match="between its ends"):
        connectivity(torch.ones(2))


def blocks() -> list[nn.Module]:
    generator = torch.Generator().manual_seed(3)
    made = []
    for _ in range(5):
        layer = nn.Linear(6, 6).double()
        with torch.no_grad():
            layer.weight.copy_(torch.randn(6, 6, generator=generator))
            layer.bias.copy_(torch.randn(6, generator=generator))
        made.append(nn.Sequential(layer, nn.Tanh()))
    return made


def test_what_is_left_after_the_second_order_is_cubic() -> None:
    x = torch.randn(8, 6, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    with torch.no_grad():

        def left(order: int, scale: float) -> float:
            return float((residual(blocks(), x, scale=scale) - expansion(blocks(), x, scale=scale, order=order)).norm())

        assert left(2, 0.02) / left(2, 0.01) == pytest.approx(8, abs=0.5)
        assert left(1, 0.02) / left(1, 0.01) == pytest.approx(4, abs=0.3)
        assert torch.equal(expansion(blocks(), x, order=0), x)
    with pytest.raises(ValueError, match="orders 0, 1 and 2"):
        expansion(blocks(), x, order=3)


def test_a_dropped_block_is_the_identity_inside_alone() -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 2))
    x = torch.randn(4, 3)
    with torch.no_grad():
        whole = model(x)
        with dropped(model[0]):
            assert torch.equal(model(x), model[1](x))
        assert torch.equal(model(x), whole)
        with dropped(model[1]), pytest.raises(ValueError, match="changes the shape"):
            model(x)


def test_moments_of_the_permutation_process() -> None:
    x, mean, covariance = process(10)
    weight = x.sum(1)
    assert float(mean[weight == 10][0, 0]) == pytest.approx(0.444, abs=1e-3)
    assert float(mean[weight == 9].min()) == pytest.approx(-0.21, abs=0.02)
    assert float(covariance.diagonal()[weight == 10]) == pytest.approx(1.89, abs=0.01)
    assert torch.allclose(mean[weight == 1], x[weight == 1], atol=1e-12)
    with pytest.raises(ValueError, match="1 to 12 places"):
        process(13)


@pytest.mark.parametrize(("places", "known"), [(3, 9), (4, 15), (5, 33)])
def test_how_many_networks_a_permutation_needs(places: int, known: int) -> None:
    assert networks_needed(places, trials=200) == pytest.approx(known, rel=0.3)


def test_more_networks_are_right_more_often() -> None:
    assert exact_share(4, 4, trials=200) < exact_share(4, 40, trials=200)
    assert exact_share(3, 9, threshold=0.0, trials=100) < 0.3
    with pytest.raises(ValueError, match="between 0 and 1"):
        networks_needed(3, probability=1.0)
    with pytest.raises(ValueError, match=r"a threshold lies in 0..1, 1 excluded; got 1"):
        exact_share(3, 9, threshold=1.0)


def test_a_threshold_of_zero_needs_many_and_one_too_high_none() -> None:
    assert networks_needed(3, threshold=0.0, trials=100) == pytest.approx(640, rel=0.3)
    assert networks_needed(1) == 1
    with pytest.raises(ValueError, match=r"no number of networks is right at 6 places and a threshold of 0.9"):
        networks_needed(6, threshold=0.9)
