"""The noise that is reported is the noise that members have."""

import pytest
import torch

from pluria.core.ensemble import join, single, stack
from pluria.sample import LayerNoise, left_alone, low_precision, nearest, noise
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
