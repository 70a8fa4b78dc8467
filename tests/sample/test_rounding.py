"""Low-precision ensembles: the law of one member and of many."""

import copy

import pytest
import torch

from pluria.core.family import Shared
from pluria.numbers.coupling import COUPLINGS
from pluria.numbers.format import FORMATS
from pluria.numbers.key import Key
from pluria.numbers.rounding import variance
from pluria.sample import left_alone, low_precision
from sample.networks import MATRIX, ROUNDED, differ, family, rows, small, uniform

SCALED = [name for name in FORMATS if name not in ("bf16", "fp16")]


@pytest.mark.parametrize("coupling", COUPLINGS)
@pytest.mark.parametrize("format", ["int3", "int5", "int4-asymmetric", "fp4-e2m1", "fp8-e5m2", "nf4", "bf16"])
def test_unbiased(format: str, coupling: str) -> None:
    count = 1024
    ensemble = low_precision(MATRIX, format=format, members=count, coupling=coupling, key=5)
    value, grid = family(ensemble).parts(0)
    # A stratified mean is closer than an independent one, so one bound serves all.
    error = rows(ensemble).mean(dim=0) - value.double()
    deviation = (variance(value, grid).double() / count).sqrt()
    assert (error.abs() <= 4.5 * deviation + 1e-7).all()


def test_a_bias_would_be_seen() -> None:
    ensemble = low_precision(MATRIX, format="int3", members=1024, coupling="independent")
    value, grid = family(ensemble).parts(0)
    shifted = value.double() + 0.1 * grid.scale.double()
    error = rows(ensemble).mean(dim=0) - shifted
    assert not (error.abs() <= 4.5 * (variance(value, grid).double() / 1024).sqrt()).all()


@pytest.mark.parametrize("coupling", COUPLINGS)
@pytest.mark.parametrize("format", ["int3", "int4-asymmetric", "fp4-e2m1", "nf4"])
def test_variance(format: str, coupling: str) -> None:
    ensemble = low_precision(MATRIX, format=format, members=1024, coupling=coupling)
    wanted = variance(*family(ensemble).parts(0)).double()
    found = rows(ensemble).var(dim=0, unbiased=False)
    assert float(found.sum() / wanted.sum()) == pytest.approx(1, abs=0.03)
    assert (found - wanted).abs().max() < 0.2 * wanted.max()


def test_variance_by_hand() -> None:
    # Codes -3..3 with scale 1: s^2 f (1 - f).
    value = torch.tensor([[3.0, 0.25, -1.5, 2.0]])
    ensemble = low_precision({"weight": value}, format="int3", members=1)
    assert variance(*family(ensemble).parts(0)).tolist() == [[0.0, 0.1875, 0.25, 0.0]]


@pytest.mark.parametrize("count", [2, 4, 16, 64])
def test_stratified_means_close_in_at_every_power_of_two(count: int) -> None:
    ensemble = low_precision(MATRIX, format="int4", members=count, coupling="stratified", key=1)
    error = rows(ensemble).mean(dim=0) - MATRIX["weight"]
    scale = family(ensemble).parts(0)[1].scale.double()
    assert (error.abs() <= scale / count * 1.0001).all()
    # One uniform in each stratum: mean squared error s^2 / (6 K^2).
    assert float((error / scale).square().mean()) * 6 * count**2 == pytest.approx(1, abs=0.35)


def test_antithetic_pairs_cancel() -> None:
    ensemble = low_precision(MATRIX, format="int4", members=2, coupling="antithetic")
    pair = rows(ensemble)
    scale = family(ensemble).parts(0)[1].scale.double()
    assert ((pair.mean(dim=0) - MATRIX["weight"]).abs() <= scale / 2 * 1.0001).all()
    assert (pair[0] != pair[1]).any()


@pytest.mark.parametrize("coupling", COUPLINGS)
def test_the_first_members_do_not_change_as_their_number_grows(coupling: str) -> None:
    few, many = (low_precision(small(), members=count, coupling=coupling) for count in (3, 40))
    assert all(not differ(few.params(member), many.params(member)) for member in range(3))
    assert len(many) == 40
    assert many.weights.tolist() == [1 / 40] * 40


def test_the_key_matters() -> None:
    first = low_precision(small(), key=7).params(0)
    assert not differ(first, low_precision(small(), key=Key(7)).params(0))
    assert differ(first, low_precision(small(), key=8).params(0)) == list(ROUNDED)
    assert differ(first, low_precision(small(), key=Key(7).fold("other")).params(0)) == list(ROUNDED)


def test_what_is_not_rounded_is_untouched() -> None:
    net = small()
    before = copy.deepcopy(net.state_dict())
    state = torch.random.get_rng_state()
    ensemble = low_precision(net, format="int2", members=4)
    for member in ensemble:
        assert differ(member, before) == list(ROUNDED)
    assert not differ(net.state_dict(), before)
    assert torch.equal(state, torch.random.get_rng_state())
    assert set(left_alone(ensemble)) == set(before) - set(ROUNDED)
    assert all(isinstance(ensemble.families[name], Shared) for name in left_alone(ensemble))


def test_members_differ() -> None:
    members = list(low_precision(small(), members=3))
    assert differ(members[0], members[1]) == differ(members[1], members[2]) == list(ROUNDED)


@pytest.mark.parametrize(("granularity", "groups"), [("tensor", (1, 192)), ("channel", (6, 32)), (8, (24, 8))])
def test_scales(granularity: object, groups: tuple[int, int]) -> None:
    ensemble = low_precision(MATRIX, format="int4", granularity=granularity)
    wanted = MATRIX["weight"].reshape(groups).abs().amax(dim=1) / 7
    torch.testing.assert_close(family(ensemble).parts(0)[1].scale.flatten(), wanted)
    codes = (rows(ensemble).reshape(-1, *groups) / wanted[:, None]).round()
    torch.testing.assert_close(codes * wanted[:, None], rows(ensemble).reshape(-1, *groups))
    assert codes.abs().max() == 7


def test_a_group_that_does_not_divide_names_the_tensor() -> None:
    with pytest.raises(ValueError, match=r"tensor '0.weight' of shape \(4, 3, 3, 3\): groups of 5 do not divide"):
        low_precision(small(), granularity=5)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_floats_are_rounded_in_their_own_dtype(dtype: torch.dtype) -> None:
    values = {"weight": MATRIX["weight"].to(dtype)}
    ensemble = low_precision(values, format="int4", members=2)
    made = ensemble.params(1)["weight"]
    assert made.dtype == dtype
    scale = family(ensemble).parts(0)[1].scale
    assert ((made.double() - values["weight"].double()).abs() <= scale * 1.01).all()


@pytest.mark.parametrize("format", SCALED)
def test_zeros_stay_zero_and_the_largest_weight_stays(format: str) -> None:
    values = {"weight": torch.cat([torch.zeros(1, 16), uniform(1, 16)])}
    values["weight"][1, 3] = -1.0
    values["weight"][1, 4] = 1.0
    for member in low_precision(values, format=format, members=8):
        assert torch.equal(member["weight"][0], torch.zeros(16))
        # An asymmetric grid holds zero and so cannot hold both ends.
        if "asymmetric" not in format:
            torch.testing.assert_close(member["weight"][1, 3:5], torch.tensor([-1.0, 1.0]))


@pytest.mark.parametrize("members", [4, 16])
def test_members_in_bfloat16_are_rounded_once_more(members: int) -> None:
    weights = uniform(64, 256)
    ensemble = low_precision({"weight": weights}, format="int8", members=members)
    step = weights.double().abs().amax(dim=1, keepdim=True) / 127

    def error(dtype: torch.dtype) -> float:
        made = [ensemble.params(member, dtype=dtype)["weight"].double() for member in range(members)]
        return float(((torch.stack(made).mean(dim=0) - weights) / step).square().mean())

    law = 1 / (6 * members**2)
    assert error(torch.float32) == pytest.approx(law, rel=0.05)
    # The second rounding's part, about 0.012 step^2, does not fall with the number of members.
    assert error(torch.bfloat16) - law == pytest.approx(0.0115, rel=0.05)
    assert error(torch.bfloat16) > 1.5 * law
