"""Nearest rounding is plain rounding and torch's own casts."""

import pytest
import torch

from pluria.core.ensemble import stack
from pluria.sample import low_precision, nearest
from sample.networks import differ, params, uniform


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
