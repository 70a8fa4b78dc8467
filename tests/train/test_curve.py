"""Curves go through their ends, bend to lower loss, and barriers are what a hand computes."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from pluria.align import refresh
from pluria.core.ensemble import single
from pluria.core.errors import CheckpointError
from pluria.core.params import params_of
from pluria.predict import gather, predict
from pluria.train import Span, along, barrier, cosine, curve, simplex_shares, subspace
from train.runs import tied


class Valley(nn.Module):
    """A loss landscape in two numbers, whose minima (-1, 0) and (1, 0) are joined by a bent valley y = 1 - x^2."""

    def __init__(self, x: float = 0.0, y: float = 0.0) -> None:
        super().__init__()
        self.at = nn.Parameter(torch.tensor([x, y], dtype=torch.float64))

    def forward(self, _: Tensor) -> Tensor:
        return 4 * (self.at[1] - (1 - self.at[0] ** 2)) ** 2


def test_ends_are_exact_and_the_polygon_is_straight() -> None:
    a, b = params_of(tied(1)), params_of(tied(2))
    span = curve(tied(), [a, b], bends=2)
    for t, end in ((0.0, a), (1.0, b)):
        for shape in ("bezier", "polygon"):
            found = span.ensemble(along(torch.tensor([t]), 4, shape=shape)).params(0)  # type: ignore[arg-type]
            assert torch.equal(found["first.weight"], end["first.weight"])
    middle = span.ensemble(along(torch.tensor([0.5]), 4)).params(0)["first.bias"]
    assert torch.allclose(middle, (a["first.bias"] + b["first.bias"]) / 2, atol=1e-6)
    ensemble = span.ensemble(torch.eye(4))
    assert ensemble.families["first.weight"] is ensemble.families["second.weight"]


def test_the_ends_of_a_path_are_the_networks_once_their_statistics_are_refreshed() -> None:
    ends, inputs = [params_of(tied(1)), params_of(tied(2))], [torch.randn(64, 3)]
    path = refresh(tied(), curve(tied(), ends).ensemble(along(torch.tensor([0.0, 1.0]), 3)), inputs, plain=True)
    alone = [refresh(tied(), single(end), inputs, plain=True).params(0) for end in ends]
    for member, end in enumerate(alone):
        assert all(torch.equal(path.params(member)[name], value) for name, value in end.items())
        assert not torch.equal(end["norm.running_var"], ends[member]["norm.running_var"])


def test_shares_sum_to_one() -> None:
    t = torch.linspace(0, 1, 7)
    for shape in ("bezier", "polygon"):
        assert torch.allclose(along(t, 5, shape=shape).sum(-1), torch.ones(7, dtype=torch.float64))  # type: ignore[arg-type]


def test_a_bend_finds_the_valley() -> None:
    ends = [params_of(Valley(-1.0, 0.0)), params_of(Valley(1.0, 0.0))]
    span, x = curve(Valley(), ends), torch.zeros(1)
    optimizer = torch.optim.Adam([p for p in span.parameters() if p.requires_grad], 0.05)
    generator = torch.Generator().manual_seed(0)
    for _ in range(400):
        optimizer.zero_grad()
        t = torch.rand((), generator=generator, dtype=torch.float64)
        torch.autograd.backward(span(x, shares=along(t, 3)))
        optimizer.step()
    shares = along(torch.linspace(0, 1, 21), 3)

    def height(c: Tensor) -> float:
        with torch.no_grad():
            return barrier(torch.stack([span(x, shares=row) for row in c]))

    line = torch.stack([1 - torch.linspace(0, 1, 21), torch.zeros(21), torch.linspace(0, 1, 21)], 1).double()
    assert height(line) == pytest.approx(4.0)
    assert height(shares) < 0.1 * height(line)
    assert torch.equal(span.points[0]["at"].detach(), ends[0]["at"])
    found = gather(predict(Valley(), span.ensemble(shares), [x], output=lambda o: o.view(1, 1)))[0]
    with torch.no_grad():
        wanted = torch.stack([span(x, shares=row) for row in shares])
    assert torch.allclose(found.flatten().double(), wanted, atol=1e-5)


def test_a_barrier_by_hand() -> None:
    assert barrier(torch.tensor([1.0, 2.5, 2.0])) == pytest.approx(1.0)
    assert barrier(torch.tensor([1.0, 0.5, 1.0])) == pytest.approx(-0.5)
    with pytest.raises(ValueError, match="a point between"):
        barrier(torch.tensor([1.0, 1.0]))


def test_corners_of_a_subspace_learn_and_their_cosine_is_known() -> None:
    span = subspace([tied(1), tied(2), tied(3)])
    shares = simplex_shares(3, 7, key=1)
    assert float(shares.sum()) == pytest.approx(1.0)
    assert torch.equal(shares, simplex_shares(3, 7, key=1))
    torch.autograd.backward(span(torch.randn(4, 3), shares=shares).square().sum())
    assert all(point["first.weight"].grad is not None for point in span.points)
    a, b = tied(1).first.weight.detach(), tied(2).first.weight.detach()
    wanted = float((a * b).sum() ** 2 / ((a * a).sum() * (b * b).sum()))
    assert float(cosine(span, 0, 1).detach()) == pytest.approx(wanted, rel=1e-5)


def test_weight_decay_is_on_what_is_evaluated() -> None:
    span = Span(Valley(), [params_of(Valley(3.0, 0.0)), params_of(Valley(0.0, 4.0))])
    assert float(span.norm(torch.tensor([0.5, 0.5], dtype=torch.float64)).detach()) == pytest.approx(1.5**2 + 2.0**2)


def test_mistakes() -> None:
    a = params_of(tied())
    with pytest.raises(ValueError, match="got 3 ends, 1 bends"):
        curve(tied(), [a, a, a])
    for other in (params_of(nn.Linear(3, 3)), {**a, "first.bias": torch.zeros(4)}):
        with pytest.raises(CheckpointError, match="does not fit the network"):
            curve(tied(), [a, other])
        with pytest.raises(CheckpointError, match="does not fit the network"):
            curve(tied(), [other, a])
    with pytest.raises(ValueError, match="two points or more; got 1"):
        Span(tied(), [a])
    with pytest.raises(ValueError, match=r"t in 0\.\.1"):
        along(1.5, 3)
    with pytest.raises(ValueError, match="'bezier' or 'polygon'"):
        along(0.5, 3, shape="spline")  # type: ignore[arg-type]
