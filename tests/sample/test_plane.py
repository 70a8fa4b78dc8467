"""Planes and paths: the anchors are the networks, the coordinates are distances."""

import pytest
import torch
from torch import Tensor

from pluria.core.ensemble import Ensemble
from pluria.core.errors import CheckpointError
from pluria.core.family import Affine, Shared
from pluria.core.params import Params
from pluria.sample import path, plane
from sample.networks import params, small


def flat(made: Params) -> Tensor:
    """All floating tensors as one vector."""
    return torch.cat([value.double().flatten() for value in made.values() if value.is_floating_point()])


def between(a: Params, b: Params, share: float) -> dict[str, Tensor]:
    return {n: a[n] if not a[n].is_floating_point() else a[n] + share * (b[n] - a[n]) for n in a}


def three() -> tuple[dict[str, Tensor], dict[str, Tensor], dict[str, Tensor]]:
    """Networks whose third corner lies above the middle of the first side, so that a grid can meet all of them."""
    a, b, d = params(0), params(1), params(2)
    side, rest = flat(b) - flat(a), flat(d) - flat(a)
    off = float(rest @ side / (side @ side))
    c = {n: a[n] if not a[n].is_floating_point() else d[n] - (off - 0.5) * (b[n] - a[n]) for n in a}
    return a, b, c


def test_anchors_are_the_three_networks() -> None:
    networks = three()
    made = plane(*networks, points=5, margin=0.0)
    assert made.points == (5, 5)
    assert len(made.ensemble) == 25
    # The third corner is halfway only within float32, so its column is found with some slack.
    for network, anchor in zip(networks, made.anchors, strict=True):
        number = int((made.coordinates - anchor).norm(dim=1).argmin())
        member = made.ensemble.params(number)
        for name, value in network.items():
            torch.testing.assert_close(member[name], value, rtol=1e-5, atol=1e-6)


def test_coordinates_are_distances() -> None:
    a, b, c = params(0), params(1), params(2)
    made = plane(a, b, c, points=4, margin=0.3)
    vectors = torch.stack([flat(member) for member in made.ensemble])
    torch.testing.assert_close(
        torch.cdist(vectors, vectors), torch.cdist(made.coordinates, made.coordinates), rtol=1e-5, atol=1e-5
    )
    corners = torch.stack([flat(network) for network in (a, b, c)])
    torch.testing.assert_close(torch.cdist(made.anchors, made.anchors), torch.cdist(corners, corners))
    torch.testing.assert_close(
        torch.cdist(vectors, corners), torch.cdist(made.coordinates, made.anchors), rtol=1e-5, atol=1e-5
    )


def test_the_grid_goes_row_by_row_around_the_box() -> None:
    made = plane(params(0), params(1), params(2), points=3, margin=0.5)
    low, high = made.anchors.min(dim=0).values, made.anchors.max(dim=0).values
    corner, far = low - 0.5 * (high - low), high + 0.5 * (high - low)
    torch.testing.assert_close(made.coordinates[0], corner)
    torch.testing.assert_close(made.coordinates[-1], far)
    assert torch.equal(made.coordinates[:3, 1], made.coordinates[0, 1].expand(3))
    assert torch.equal(made.coordinates[::3, 0], made.coordinates[0, 0].expand(3))
    assert made.anchors[0].tolist() == [0.0, 0.0]
    assert made.anchors[1, 1] == 0


def test_by_hand() -> None:
    a, b, c = ({"w": torch.tensor(value)} for value in ([0.0, 0.0, 0.0], [4.0, 0.0, 0.0], [2.0, 0.0, 3.0]))
    made = plane(a, b, c, points=3, margin=0.0)
    assert made.anchors.tolist() == [[0.0, 0.0], [4.0, 0.0], [2.0, 3.0]]
    wanted = [[x, 0.0, y] for y in (0.0, 1.5, 3.0) for x in (0.0, 2.0, 4.0)]
    assert [member["w"].tolist() for member in made.ensemble] == wanted
    assert made.coordinates.tolist() == [[x, y] for x, _, y in wanted]


@pytest.mark.parametrize("share", [0.3, -2.0, 0.0, 1.0])
def test_three_on_a_line_are_refused(share: float) -> None:
    a, b = params(0), params(1)
    with pytest.raises(ValueError, match="lie on one line"):
        plane(a, b, between(a, b, share))


def test_twice_the_same_is_refused() -> None:
    with pytest.raises(ValueError, match="lie on one line"):
        plane(params(0), params(0), params(1))


def test_tied_tensors_count_once() -> None:
    a, b, c = ({"w": value, "tied": value} for value in torch.eye(3))
    made = plane(a, b, c)
    assert float(made.anchors[1, 0]) == pytest.approx(2**0.5)
    assert made.ensemble.families["w"] is made.ensemble.families["tied"]


def test_integers_are_the_first_networks() -> None:
    ensemble = path([{"w": torch.zeros(2), "n": torch.tensor(3)}, {"w": torch.ones(2), "n": torch.tensor(8)}])
    assert isinstance(ensemble.families["n"], Shared)
    assert isinstance(ensemble.families["w"], Affine)
    assert {int(member["n"]) for member in ensemble} == {3}


@pytest.mark.parametrize("count", [2, 3, 5])
@pytest.mark.parametrize("steps", [2, 4, 50])
def test_a_path_meets_its_ends_exactly(count: int, steps: int) -> None:
    points = [params(seed) for seed in range(count)]
    ensemble = path(points, steps=steps)
    assert len(ensemble) == (count - 1) * (steps - 1) + 1
    for end, member in ((points[0], 0), (points[-1], len(ensemble) - 1)):
        made = ensemble.params(member)
        assert all(torch.equal(made[name], value) for name, value in end.items())
    for number, point in enumerate(points):
        torch.testing.assert_close(ensemble.params(number * (steps - 1)), point, rtol=1e-6, atol=1e-7)


def test_a_path_by_hand() -> None:
    points = [{"w": torch.tensor([x, y])} for x, y in ((0.0, 0.0), (4.0, 0.0), (4.0, 8.0))]
    wanted = [[0.0, 0.0], [2.0, 0.0], [4.0, 0.0], [4.0, 4.0], [4.0, 8.0]]
    assert [member["w"].tolist() for member in path(points, steps=3)] == wanted


@pytest.mark.parametrize(("count", "steps"), [(1, 5), (2, 1)])
def test_a_path_needs_two_points_and_steps(count: int, steps: int) -> None:
    with pytest.raises(ValueError, match="two points and two steps"):
        path([params(0)] * count, steps=steps)


def test_other_networks_are_refused() -> None:
    with pytest.raises(CheckpointError, match="checkpoint number 2"):
        plane(params(0), params(1), {"w": torch.zeros(2)})
    with pytest.raises(CheckpointError, match="checkpoint number 1"):
        path([params(0), {"w": torch.zeros(2)}])


def live(seed: int) -> dict[str, Tensor]:
    return dict(small(seed).named_parameters())


def test_live_networks_are_copied_without_gradients() -> None:
    first, second, third = live(0), live(1), live(2)
    made: list[Ensemble] = [path([first, second]), plane(first, second, third).ensemble]
    before = [ensemble.params(3) for ensemble in made]
    assert not any(value.requires_grad for params in before for value in params.values())
    with torch.no_grad():
        for value in first.values():
            value.add_(1)
    for ensemble, held in zip(made, before, strict=True):
        assert all(torch.equal(value, held[name]) for name, value in ensemble.params(3).items())


def test_bfloat16_is_rounded_once() -> None:
    a, b = ({"w": torch.randn(50, generator=torch.Generator().manual_seed(s)).bfloat16()} for s in (0, 1))
    for member, share in zip(path([a, b], steps=5), (0.0, 0.25, 0.5, 0.75, 1.0), strict=True):
        wanted = a["w"].double() + share * (b["w"].double() - a["w"].double())
        assert torch.equal(member["w"], wanted.to(torch.bfloat16))


def test_ties_are_found_by_memory_and_hold_in_every_network() -> None:
    a, b, c = ({"w": value.detach(), "tied": value.detach()} for value in torch.eye(3))
    made = plane(a, b, c, points=3).ensemble
    assert made.families["w"] is made.families["tied"]
    apart = {**b, "tied": torch.full((3,), 2.0)}
    end = path([a, apart], steps=2).params(1)
    assert torch.equal(end["w"], b["w"])
    assert torch.equal(end["tied"], apart["tied"])
