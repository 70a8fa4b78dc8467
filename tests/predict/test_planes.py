"""Products of K members on a CPU against float64, and the planes they are made from against the members."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

import pluria
from pluria.numbers import kernel, threads
from pluria.predict.kernels.compiled_product import FEW
from pluria.predict.kernels.operands import Planes, planes
from pluria.predict.kernels.product import fast, product, reference


def held(form: str, granularity: Any, members: int, shape: tuple[int, int]) -> tuple[Planes, pluria.Ensemble]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        layer = nn.Linear(shape[1], shape[0], bias=False)
    made = pluria.low_precision(layer, format=form, granularity=granularity, members=members)  # type: ignore[arg-type]
    return planes(made.families["weight"], made.members), made


FORMS = [("int4", "channel"), ("int2", "tensor"), ("int8", 8), ("int5-asymmetric", "channel"), ("int4-asymmetric", 8)]


@pytest.mark.parametrize(("form", "granularity"), FORMS)
@pytest.mark.parametrize("members", [1, 8, 11, 17])
def test_planes_are_the_members(form: str, granularity: Any, members: int) -> None:
    operand, made = held(form, granularity, members, (6, 24))
    for place, member in enumerate(made.members):
        scale = operand.scale.repeat_interleave(24 // operand.scale.shape[1], dim=1)
        assert torch.equal(operand.integers(place) * scale, made.params(member)["weight"])


def test_planes_are_equal_with_and_without_compiled_loops(monkeypatch: pytest.MonkeyPatch) -> None:
    quick, made = held("int4", "channel", 5, (7, 40))
    monkeypatch.setattr(kernel, "available", lambda device: False)
    slow = planes(made.families["weight"], made.members)
    assert all(torch.equal(quick.integers(k), slow.integers(k)) for k in range(5))
    assert torch.equal(quick.floor, slow.floor)
    assert torch.equal(quick.planes, slow.planes)
    assert not fast(torch.device("cpu"))


@pytest.mark.parametrize(("form", "granularity"), FORMS)
@pytest.mark.parametrize("members", [1, 8, 11])
@pytest.mark.parametrize("rows", [1, FEW, FEW + 1, 9])
@pytest.mark.parametrize("shared", [False, True])
def test_products(form: str, granularity: Any, members: int, rows: int, shared: bool) -> None:
    operand, made = held(form, granularity, members, (7, 40))
    draw = torch.Generator().manual_seed(1)
    x = torch.randn((rows, 40) if shared else (members, rows, 40), generator=draw)
    bias = torch.randn((members, 7), generator=draw)
    want = torch.stack(
        [
            (x if shared else x[k]).double() @ made.params(i)["weight"].double().T + bias[k]
            for k, i in enumerate(made.members)
        ]
    )
    assert fast(x.device)
    torch.testing.assert_close(product(operand, x, bias), want.float(), rtol=1e-5, atol=1e-5)
    half = product(operand, x.bfloat16(), bias)
    assert half.dtype == torch.bfloat16
    torch.testing.assert_close(half.double(), want, rtol=2e-2, atol=4e-2)


def test_threads_change_no_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    operand, _ = held("int4", 8, 8, (37, 40))
    monkeypatch.setattr(threads, "SHARE", 40)
    x = torch.randn(8, 7, 40, generator=torch.Generator().manual_seed(0))
    found = []
    for count in (1, 2, 3):
        monkeypatch.setattr(torch, "get_num_threads", lambda count=count: count)
        found.append((product(operand, x[:, :2]), product(operand, x)))
    for few, many in found[1:]:
        assert torch.equal(few, found[0][0])
        assert torch.equal(many, found[0][1])


def test_no_rows_take_the_reference() -> None:
    operand, _ = held("int4", "channel", 3, (4, 8))
    assert product(operand, torch.zeros(3, 0, 8)).shape == (3, 0, 4)
    assert torch.equal(reference(operand, torch.zeros(2, 8)), torch.zeros(3, 2, 4))
