"""Low-precision ensembles: which tensors are rounded, on which grids, and what is refused."""

import pytest
import torch
from torch import nn

from pluria.core.ensemble import stack
from pluria.core.model import ROUNDED as KINDS
from pluria.core.model import Role, roles
from pluria.core.rounded import Rounded
from pluria.numbers.format import FORMATS
from pluria.sample import left_alone, low_precision
from sample.networks import MATRIX, family, small, uniform


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


@pytest.mark.parametrize("where", [["*.bias"], lambda name, role: False, ["0.bias"], ["!*"]])
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


def test_roles_can_be_given() -> None:
    turned = low_precision(MATRIX, format="int4", roles={"weight": Role("linear", axis=1)})
    assert family(turned).parts(0)[1].scale.shape == (32, 1)
    assert left_alone(low_precision({**MATRIX, "table": uniform(2, 2)}, roles={"table": Role("linear")})) == []


def test_roles_of_a_model_serve_its_checkpoints() -> None:
    net = nn.Sequential(nn.ConvTranspose2d(2, 3, 2))
    axes = low_precision(net, format="int4"), low_precision(stack([dict(net.state_dict())]), roles=roles(net))
    assert {family(e, "0.weight").layout.rows for e in axes} == {3}


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


UNFIT = (
    {"where": ["feetures.*"]},
    {"where": ["!haed.weight"]},
    {"format": {"*": "int5", "nope.*": "int4"}},
    {"roles": {"x": Role("linear")}},
)


@pytest.mark.parametrize("options", UNFIT)
def test_a_pattern_or_a_name_that_fits_nothing_is_refused(options):
    params = {"features.weight": torch.ones(2, 3), "head.weight": torch.ones(2, 3)}
    with pytest.raises(ValueError, match="fits no tensor"):
        low_precision(params, **options)
