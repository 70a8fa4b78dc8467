"""The noise that is reported is the noise that members have."""

import pytest
import torch
from torch import nn

from pluria.core.coded import keep_codes
from pluria.core.ensemble import Ensemble, join, single, stack
from pluria.core.family import map_tensors
from pluria.numbers.format import number_format
from pluria.numbers.grid import fit_grid, layout
from pluria.sample import LayerNoise, left_alone, low_precision, moments, nearest, noise, output_error
from pluria.store import packed
from sample.networks import ROUNDED, params, small, uniform


@pytest.mark.parametrize("format", ["int3", "int5", "int4-asymmetric", "fp8-e4m3", "fp4-e2m1", "nf4"])
def test_expected_noise_is_the_empirical_one(format: str) -> None:
    values = {"weight": uniform(16, 64)}
    ensemble = low_precision(values, format=format, members=200, coupling="independent")
    (row,) = noise(ensemble)
    errors = torch.stack([(member["weight"] - values["weight"]).square().sum() for member in ensemble])
    assert row.noise == pytest.approx(float((errors.mean() / values["weight"].square().sum()).sqrt()), rel=0.02)
    closest = nearest(values, format=format).params(0)["weight"]
    gap = float((closest - values["weight"]).norm() / values["weight"].norm())
    assert row.nearest == pytest.approx(gap, rel=1e-5)
    assert row.noise > row.nearest
    assert row.clipped == 0


@pytest.mark.parametrize(("bits", "wanted"), [(6, 0.046), (5, 0.093), (4, 0.20), (3, 0.47)])
def test_noise_of_normal_weights_with_1024_inputs(bits: int, wanted: float) -> None:
    values = torch.randn(64, 1024, generator=torch.Generator().manual_seed(0))
    (row,) = noise(low_precision({"weight": values}, format=f"int{bits}"))
    assert row.noise == pytest.approx(wanted, rel=0.05)


def test_one_row_for_each_rounded_tensor() -> None:
    rows = noise(low_precision(small(), format={"0.*": "int8", "*": "int4"}, granularity=3, where=["!5.*"]))
    assert [(row.name, row.shape, row.format, row.granularity) for row in rows] == [
        ("0.weight", (4, 3, 3, 3), "int8", "3"),
        ("3.weight", (6, 4, 3, 3), "int4", "3"),
    ]
    assert rows[0].noise < rows[1].noise


def test_nearest_rounding_has_no_noise_but_an_error() -> None:
    (row,) = noise(nearest({"weight": uniform(4, 8)}))
    assert row.noise == 0
    assert 0 < row.nearest < 0.1


def test_zeros_have_neither() -> None:
    (row,) = noise(low_precision({"weight": torch.zeros(4, 8)}))
    assert (row.noise, row.nearest, row.clipped) == (0.0, 0.0, 0.0)


def test_weights_beyond_a_grid_are_counted() -> None:
    values = torch.full((1, 8), 1e5)
    values[0, :6] = 1.0
    (row,) = noise(low_precision({"weight": values}, format="fp16"))
    assert row.clipped == 0.25


def test_a_tied_tensor_has_one_row() -> None:
    value = uniform(4, 4)
    assert len(noise(low_precision({"a.weight": value, "b.weight": value}))) == 1


def test_the_first_base_and_the_first_part_are_shown() -> None:
    bases = [params(0), params(1)]
    alone = noise(low_precision(bases[0]))
    assert noise(low_precision(stack(bases), members=4)) == alone
    union = join(low_precision(bases[0]), low_precision(bases[1]))
    assert noise(union) == alone
    assert set(left_alone(union)) == set(bases[0]) - set(ROUNDED)


def test_nothing_rounded_has_no_rows() -> None:
    assert noise(single(params(0))) == []
    assert left_alone(single(params(0))) == list(params(0))
    assert isinstance(noise(low_precision(params(0)))[0], LayerNoise)


def codes(*rows: list[int], clipped: float | None = None) -> Ensemble:
    """Members with these codes of INT-3, on a grid of step one."""
    value = torch.tensor([[3.0, 0.0, -3.0]])
    grid = fit_grid(value, number_format("int3"), layout=layout((1, 3)))
    family = keep_codes([torch.tensor(row) for row in rows], grid, single({"w": value}).families["w"], clipped=clipped)
    return Ensemble({"w": family, "tied": family}, tuple(range(len(rows))))


def test_of_codes_the_spread_around_their_mean_is_shown() -> None:
    ensemble = codes([3, 4, 5], [3, 6, 5])  # the members 0, 1, 2 and 0, 3, 2: variance 2 around the mean 0, 2, 2
    spread = pytest.approx((2 / 8) ** 0.5, rel=1e-12)
    assert [vars(row) for row in noise(ensemble)] == [
        vars(LayerNoise("w", (1, 3), "int3", "tensor", spread, None, 0.0, True))
    ]
    assert left_alone(ensemble) == []
    assert noise(codes([3, 4, 5], [3, 5, 5]))[0].compensated is False
    (alone,) = noise(codes([3, 4, 5], clipped=0.25))
    assert (alone.noise, alone.nearest, alone.clipped, alone.compensated) == (0.0, None, 0.25, True)
    (zeros,) = noise(codes([3, 3, 3], [3, 3, 3]))
    assert zeros.noise == 0


def test_what_clipped_is_carried_by_copies() -> None:
    family = map_tensors(codes([3, 4, 5], clipped=0.25).families["w"], lambda tensor: tensor.clone())
    assert getattr(family, "clipped", None) == 0.25


@pytest.mark.parametrize(("format", "granularity"), [("int5", "channel"), ("int3-asymmetric", 8), ("nf4", "tensor")])
@pytest.mark.parametrize("form", ["members", "planes"])
def test_packed_members_have_the_noise_of_those_they_are(format: str, granularity: str, form: str) -> None:
    ensemble = low_precision(
        {"weight": uniform(16, 64)}, format=format, members=64, granularity=granularity, coupling="independent"
    )
    (row,), (wanted,) = noise(packed(ensemble, form=form)), noise(ensemble)
    assert row.noise == pytest.approx(wanted.noise, rel=0.03)
    assert (row.shape, row.format, row.granularity) == (wanted.shape, wanted.format, wanted.granularity)
    assert (row.nearest, row.compensated) == (None, False)


def test_packed_members_of_several_bases_are_not_taken_for_compensated() -> None:
    ensemble = packed(low_precision(stack([params(0), params(1)]), members=4))
    assert not any(row.compensated for row in noise(ensemble))


def test_the_error_of_outputs_by_hand() -> None:
    layer = nn.Linear(2, 1, bias=False)
    layer.weight.data = torch.tensor([[3.0, 4.0]])
    found = moments(layer, [torch.tensor([[1.0, 0.0], [0.0, 2.0]])])  # mean squares 1/2 and 2
    members = stack([{"weight": torch.tensor([[3.0, 5.0]])}, {"weight": torch.tensor([[6.0, 4.0]])}])
    # (0.5 * 0 + 2 * 1 + 0.5 * 9 + 2 * 0) / 2 over 0.5 * 9 + 2 * 16
    wanted = (3.25 / 36.5) ** 0.5
    assert output_error(members, found, {"weight": layer.weight.detach()}) == {"weight": pytest.approx(wanted)}
    assert output_error(single({"weight": layer.weight}), found, {"weight": layer.weight}) == {"weight": 0.0}
    silent = moments(layer, [torch.zeros(1, 2)])
    assert output_error(members, silent, {"weight": layer.weight.detach()}) == {"weight": 0.0}
