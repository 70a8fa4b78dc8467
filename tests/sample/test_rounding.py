"""Low-precision ensembles: the law of one member, of many, and what is left alone or refused."""

import copy
from collections.abc import Mapping

import pytest
import torch
from torch import Tensor, nn

from pluria.core.ensemble import Ensemble, join, single, stack
from pluria.core.errors import CheckpointError
from pluria.core.family import Shared, block
from pluria.core.model import ROUNDED as KINDS
from pluria.core.model import Role, roles
from pluria.core.rounded import Rounded
from pluria.numbers.coupling import COUPLINGS
from pluria.numbers.format import FORMATS
from pluria.numbers.key import Key
from pluria.numbers.rounding import variance
from pluria.sample import gaussian, left_alone, low_precision, nearest
from sample.networks import ROUNDED, params, small, uniform

MATRIX = {"weight": uniform(6, 32)}


def rows(ensemble: Ensemble, name: str = "weight") -> Tensor:
    return block(ensemble.families[name], ensemble.members).double()


def family(ensemble: Ensemble, name: str = "weight") -> Rounded:
    found = ensemble.families[name]
    assert isinstance(found, Rounded)
    return found


def differ(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> list[str]:
    return [name for name in one if not torch.equal(one[name], other[name])]


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


@pytest.mark.parametrize(
    ("where", "wanted"),
    [
        (None, ["0.weight", "3.weight", "5.weight"]),
        (["0.*"], ["0.weight"]),
        (["0.*", "5.weight"], ["0.weight", "5.weight"]),
        (["!3.*"], ["0.weight", "5.weight"]),
        (["*", "!3.*"], ["0.weight", "5.weight"]),
        (lambda name, role: role.kind == "conv", ["0.weight", "3.weight"]),
        (lambda name, role: name == "5.weight" and role == Role("linear"), ["5.weight"]),
        (lambda name, role: role.kind in KINDS or name == "5.bias", ["0.weight", "3.weight", "5.weight", "5.bias"]),
    ],
)
def test_where(where: object, wanted: list[str]) -> None:
    ensemble = low_precision(small(), format="int2", members=2, where=where)
    assert [name for name, f in ensemble.families.items() if isinstance(f, Rounded)] == wanted


def test_everything_that_can_be_rounded_is_rounded_by_a_function() -> None:
    values = {"a.weight": uniform(2, 2), "empty": torch.zeros(3, 0), "scale": torch.tensor(2.0), "b": uniform(3)}
    ensemble = low_precision(values, where=lambda name, role: True)
    assert left_alone(ensemble) == ["empty", "scale"]


def test_where_is_a_list() -> None:
    with pytest.raises(TypeError, match=r"Write \['0.\*'\]"):
        low_precision(small(), where="0.*")


@pytest.mark.parametrize("where", [["nothing"], lambda name, role: False, ["0.bias"], ["!*"]])
def test_nothing_to_round_is_refused(where: object) -> None:
    with pytest.raises(ValueError, match="nothing to round"):
        low_precision(small(), where=where)


def test_a_format_for_each_layer() -> None:
    ensemble = low_precision(small(), format={"0.*": "int8", "3.*": FORMATS["nf4"]})
    assert {n: f.format.name for n, f in ensemble.families.items() if isinstance(f, Rounded)} == {
        "0.weight": "int8",
        "3.weight": "nf4",
    }
    first = low_precision(small(), format={"5.*": "int2", "*": "int6"})
    assert family(first, "5.weight").format.bits == 2
    assert family(first, "0.weight").format.bits == 6


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


def test_roles_can_be_given() -> None:
    turned = low_precision(MATRIX, format="int4", roles={"weight": Role("linear", axis=1)})
    assert family(turned).parts(0)[1].scale.shape == (32, 1)
    assert left_alone(low_precision({**MATRIX, "table": uniform(2, 2)}, roles={"table": Role("linear")})) == []


def test_model_and_params_give_the_same_members() -> None:
    net = small()
    one, other = low_precision(net, members=3), low_precision(net.state_dict(), members=3)
    assert not any(differ(a, b) for a, b in zip(one, other, strict=True))
    last = low_precision(small().to(memory_format=torch.channels_last), members=3)
    assert not any(differ(a, b) for a, b in zip(one, last, strict=True))


def test_parameters_that_ask_for_gradients() -> None:
    ensemble = low_precision(dict(small().named_parameters()), members=2)
    assert not any(value.requires_grad for value in ensemble.params(1).values())


def test_training_afterwards_does_not_change_the_ensemble() -> None:
    net = small()
    ensemble = low_precision(net, members=2)
    before = ensemble.params(1)
    with torch.no_grad():
        for value in net.parameters():
            value.add_(1)
    assert not differ(before, ensemble.params(1))
    assert not differ(before, low_precision(small(), members=2).params(1))


def test_each_base_in_turn() -> None:
    bases = [params(seed) for seed in range(3)]
    ensemble = low_precision(stack(bases), format="int8", members=8)
    for member, made in enumerate(ensemble):
        base = bases[member % 3]
        assert differ(made, base) == list(ROUNDED)
        for name in ROUNDED:
            step = base[name].abs().flatten(1).amax(dim=1) / 127
            gap = (made[name] - base[name]).abs().flatten(1).amax(dim=1)
            assert (gap <= step * 1.001).all()
    assert not differ(ensemble.params(1), low_precision(stack(bases), format="int8", members=2).params(1))


def test_bases_keep_their_numbers() -> None:
    bases = [params(seed) for seed in range(3)]
    ensemble = low_precision(stack(bases).take([2, 0]), format="int8", members=5)
    found = [[torch.equal(made["5.bias"], base["5.bias"]) for base in bases].index(True) for made in ensemble]
    assert found == [2, 0, 2, 0, 2]
    assert family(ensemble, "0.weight").bases == (2, 0)


def test_draws_have_the_weights_of_their_bases() -> None:
    weighted = stack([params(0), params(1)]).reweight(torch.tensor([3.0, 1.0]))
    assert low_precision(weighted, members=4).weights.tolist() == [0.375, 0.125, 0.375, 0.125]
    assert nearest(weighted).weights.tolist() == [0.75, 0.25]
    assert low_precision(stack([params(0), params(1)]), members=3).weights.tolist() == pytest.approx([1 / 3] * 3)


def test_bases_by_chance() -> None:
    around = gaussian(low_precision(params(0), format="int4"), key=1).take([3, 6])
    ensemble = low_precision(around, format="int8", members=4)
    for member, made in enumerate(ensemble):
        base = around.params((3, 6)[member % 2])
        assert differ(made, base) == list(ROUNDED)
        gap = (made["5.weight"] - base["5.weight"]).abs().amax(dim=1)
        assert (gap <= base["5.weight"].abs().amax(dim=1) / 127 * 1.001).all()
    assert differ(ensemble.params(0), ensemble.params(1)) == list(ROUNDED)


def test_a_union_can_be_rounded() -> None:
    both = join(single(params(0)), single(params(1)))
    ensemble = low_precision(both, format="int8", members=2)
    assert torch.equal(ensemble.params(1)["5.bias"], params(1)["5.bias"])


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("name", ["0.weight", "5.bias", "1.running_var"])
def test_values_that_are_not_finite_are_refused(bad: float, name: str) -> None:
    values = params(0)
    values[name].view(-1)[0] = bad
    with pytest.raises(CheckpointError, match=rf"the checkpoint: 1 not finite \({name}\)"):
        low_precision(values)
    with pytest.raises(CheckpointError, match=rf"member 1 of the ensemble: 1 not finite \({name}\)"):
        low_precision(stack([params(1), values]))


@pytest.mark.parametrize("dtype", [torch.int8, torch.uint8, torch.int32, torch.float8_e4m3fn, torch.float8_e5m2])
def test_quantised_checkpoints_are_refused(dtype: torch.dtype) -> None:
    with pytest.raises(CheckpointError, match=f"'fc.weight' holds {dtype}: this checkpoint is quantised already"):
        low_precision({"fc.weight": torch.ones(4, 4).to(dtype)})


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_floats_are_rounded_in_their_own_dtype(dtype: torch.dtype) -> None:
    values = {"weight": MATRIX["weight"].to(dtype)}
    ensemble = low_precision(values, format="int4", members=2)
    made = ensemble.params(1)["weight"]
    assert made.dtype == dtype
    scale = family(ensemble).parts(0)[1].scale
    assert ((made.double() - values["weight"].double()).abs() <= scale * 1.01).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"members": 0}, "one member or more; got 0"),
        ({"members": -2}, "one member or more"),
        ({"members": 2.0}, "one member or more; got 2.0"),
        ({"members": True}, "one member or more; got True"),
        ({"coupling": "stratifed"}, "independent, antithetic, stratified; got 'stratifed'"),
        ({"format": "int9"}, "unknown number format 'int9'; did you mean"),
        ({"format": {"*": "int99"}}, "unknown number format"),
        ({"granularity": "chanel"}, "per 'channel', per 'tensor', or per so many inputs; got 'chanel'"),
        ({"granularity": True}, "got True"),
        ({"granularity": 0}, "groups of 0"),
        ({"key": -1}, "a seed lies in"),
    ],
)
def test_bad_options_are_refused(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        low_precision(small(), **options)


def test_a_key_is_an_integer() -> None:
    with pytest.raises(TypeError, match="a seed is an integer"):
        low_precision(small(), key="7")  # type: ignore[arg-type]


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed, self.head = nn.Embedding(5, 3), nn.Linear(3, 5, bias=False)
        self.head.weight = self.embed.weight


def test_tied_tensors_are_rounded_once_under_their_first_name() -> None:
    ensemble = low_precision(Tied(), members=2)
    assert ensemble.families["embed.weight"] is ensemble.families["head.weight"]
    assert family(ensemble, "head.weight").name == "embed.weight"
    assert ensemble.bits().members == 2 * (15 * 5 + 5 * 32)


@pytest.mark.parametrize("bits", range(2, 9))
def test_nearest_integers_are_plain_rounding(bits: int) -> None:
    values = {"weight": uniform(8, 50)}
    top = 2 ** (bits - 1) - 1
    scale = values["weight"].abs().amax(dim=1, keepdim=True) / top
    wanted = torch.round(values["weight"] / scale).clamp(-top, top) * scale
    ensemble = nearest(values, format=f"int{bits}")
    assert len(ensemble) == 1
    assert torch.equal(ensemble.params(0)["weight"], wanted)


@pytest.mark.parametrize("format", ["fp8-e4m3", "fp8-e5m2"])
def test_nearest_8_bit_floats_are_torch_casts(format: str) -> None:
    values, kind = uniform(8, 50), {"fp8-e4m3": torch.float8_e4m3fn, "fp8-e5m2": torch.float8_e5m2}[format]
    scale = values.abs().amax(dim=1, keepdim=True) / torch.finfo(kind).max
    wanted = (values / scale).to(kind).to(torch.float32) * scale
    assert torch.equal(nearest({"weight": values}, format=format).params(0)["weight"], wanted)


@pytest.mark.parametrize(("format", "kind"), [("bf16", torch.bfloat16), ("fp16", torch.float16)])
def test_nearest_16_bit_floats_are_torch_casts(format: str, kind: torch.dtype) -> None:
    values = uniform(8, 50)
    wanted = values.to(kind).to(torch.float32)
    assert torch.equal(nearest({"weight": values}, format=format).params(0)["weight"], wanted)


def test_nearest_of_an_ensemble_is_each_members() -> None:
    bases = [params(seed) for seed in range(3)]
    made = list(nearest(stack(bases), format="int4"))
    assert len(made) == 3
    for base, found in zip(bases, made, strict=True):
        assert not differ(found, nearest(base, format="int4").params(0))


def test_a_member_has_about_twice_the_squared_error_of_nearest_rounding() -> None:
    values = {"weight": uniform(64, 64)}
    error = [
        float((e.params(0)["weight"] - values["weight"]).square().sum())
        for e in (low_precision(values), nearest(values))
    ]
    assert error[0] / error[1] == pytest.approx(2, abs=0.15)


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


def test_roles_of_a_model_serve_its_checkpoints() -> None:
    net = nn.Sequential(nn.ConvTranspose2d(2, 3, 2))
    axes = low_precision(net, format="int4"), low_precision(stack([dict(net.state_dict())]), roles=roles(net))
    assert {family(e, "0.weight").layout.rows for e in axes} == {3}
