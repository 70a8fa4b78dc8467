"""Laws of merges, for every row of the catalogue; and what a row says it breaks is really broken."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from laws.examples import MERGES, rows
from pluria.core.ensemble import Ensemble, stack
from pluria.core.params import Params
from pluria.recipe.catalogue import methods
from pluria.recipe.method import Method

every = pytest.mark.parametrize("method", methods("merge"), ids=lambda m: m.name)
WEIGHTS = torch.tensor([0.1, 0.2, 0.7], dtype=torch.float64)


def keeps(law: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("method", rows("merge", law), ids=lambda m: m.name)


def params(seed: int) -> dict[str, Tensor]:
    """Tensors of one and two axes, a scalar, a count of batches and an index."""
    draw = torch.Generator().manual_seed(seed)
    made = {"a.weight": torch.randn(6, 5, generator=draw), "a.bias": torch.randn(6, generator=draw)}
    counts = {"n.num_batches_tracked": torch.tensor(4), "index": torch.arange(3)}
    return {**made, "scale": torch.randn((), generator=draw), **counts}


def base() -> Params:
    return params(100)


def members(*seeds: int, weights: Tensor | None = None) -> Ensemble:
    return stack([params(seed) for seed in seeds]).reweight(weights)


def merged(method: Method, ensemble: Ensemble) -> dict[str, Tensor]:
    return MERGES[method.name](method.load())(ensemble, base())


def close(one: Params, other: Params) -> bool:
    return list(one) == list(other) and all(torch.allclose(one[n], other[n], rtol=1e-5, atol=1e-6) for n in one)


@keeps("single")
def test_one_member_is_itself(method: Method) -> None:
    assert close(merged(method, members(1)), params(1))


@keeps("copies")
def test_copies_of_one_member_give_it_back(method: Method) -> None:
    assert close(merged(method, members(1, 1, 1, weights=WEIGHTS)), params(1))


@keeps("order")
def test_members_with_their_weights_have_no_order(method: Method) -> None:
    one = merged(method, members(1, 2, 3, weights=WEIGHTS))
    assert close(one, merged(method, members(3, 1, 2, weights=WEIGHTS[[2, 0, 1]])))


@keeps("double")
def test_a_doubled_weight_is_a_doubled_member(method: Method) -> None:
    assert close(merged(method, members(1, 2, weights=torch.tensor([1.0, 2.0]))), merged(method, members(1, 2, 2)))


@keeps("rounding")
def test_there_is_one_rounding(method: Method) -> None:
    seeds = (1, 2) if method.name == "slerp" else (1, 2, 3)
    assert rounded_once(method, torch.float32, *seeds)
    narrow, exact = (merged_as(method, dtype, torch.bfloat16, *seeds) for dtype in (torch.bfloat16, torch.float64))
    for name, value in narrow.items():
        assert bool(((value.double() - exact[name]).abs() <= 2**-8 * exact[name].abs() + 1e-6).all()), name


def merged_as(method: Method, dtype: torch.dtype, values: torch.dtype, *seeds: int) -> dict[str, Tensor]:
    """Members and base whose numbers are those of `values`, held and merged as `dtype`; floating tensors alone."""

    def held(seed: int) -> dict[str, Tensor]:
        return {n: v.to(values).to(dtype) if v.is_floating_point() else v for n, v in params(seed).items()}

    made = MERGES[method.name](method.load())(stack([held(seed) for seed in seeds]), held(100))
    return {name: value for name, value in made.items() if value.is_floating_point()}


def rounded_once(method: Method, dtype: torch.dtype, *seeds: int) -> bool:
    """Whether merging in `dtype` is merging in float64, rounded."""
    narrow, exact = (merged_as(method, held, dtype, *seeds) for held in (dtype, torch.float64))
    return all(torch.equal(value, exact[name].to(dtype)) for name, value in narrow.items())


@every
def test_shapes_and_dtypes_are_kept_and_integers_copied(method: Method) -> None:
    ensemble = members(1, 2)
    made = merged(method, ensemble)
    assert {n: (v.shape, v.dtype) for n, v in made.items()} == {n: (v.shape, v.dtype) for n, v in params(1).items()}
    assert torch.equal(made["index"], torch.arange(3))
    assert torch.equal(made["n.num_batches_tracked"], torch.tensor(4))
    assert close(ensemble.params(0), params(1))
    assert close(ensemble.params(1), params(2))


BROKEN = {
    "single": lambda m: close(merged(m, members(1)), params(1)),
    "copies": lambda m: close(merged(m, members(1, 1, 1, weights=WEIGHTS)), params(1)),
    "order": lambda m: close(merged(m, members(1, 2, 3)), merged(m, members(3, 1, 2))),
    "double": lambda m: close(merged(m, members(1, 2, weights=torch.tensor([1.0, 2.0]))), merged(m, members(1, 2, 2))),
    "rounding": lambda m: rounded_once(m, torch.float32, 1, 2, 3),
}


@pytest.mark.parametrize(
    ("method", "law"), [(m, law) for m in methods("merge") for law in m.breaks], ids=lambda v: getattr(v, "name", v)
)
def test_what_is_said_to_be_broken_is_broken(method: Method, law: str) -> None:
    try:
        kept = BROKEN[law](method)
    except ValueError:  # another number of members than the method takes
        return
    assert not kept
