"""Laws of pools, for every row of the catalogue; and what a row says it breaks is really broken."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from laws.examples import POOLS, rows
from pluria.recipe.catalogue import methods
from pluria.recipe.method import Method

every = pytest.mark.parametrize("method", methods("pool"), ids=lambda m: m.name)
K, N, C = 4, 6, 5
WEIGHTS = torch.tensor([0.1, 0.2, 0.3, 0.4], dtype=torch.float64)


def keeps(law: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("method", rows("pool", law), ids=lambda m: m.name)


def close(one: Tensor, other: Tensor) -> bool:
    return one.shape == other.shape and torch.allclose(one, other, rtol=1e-12, atol=1e-12)


@keeps("single")
def test_one_member_is_its_own_mean(method: Method) -> None:
    x = POOLS[method.name](1, N, C)
    assert close(method.load()(x), x[0])
    assert close(method.load()(x, torch.tensor([3.0])), x[0])


@keeps("copies")
def test_copies_of_one_member_give_it_back(method: Method) -> None:
    x = POOLS[method.name](1, N, C)
    assert close(method.load()(x.expand(K, -1, -1), WEIGHTS), x[0])


@keeps("order")
def test_members_with_their_weights_have_no_order(method: Method) -> None:
    x, order = POOLS[method.name](K, N, C), [2, 0, 3, 1]
    assert close(method.load()(x, WEIGHTS), method.load()(x[order], WEIGHTS[order]))
    assert not close(method.load()(x, WEIGHTS), method.load()(x[order], WEIGHTS))


@keeps("double")
def test_a_doubled_weight_is_a_doubled_member(method: Method) -> None:
    x, pool = POOLS[method.name](K, N, C), method.load()
    doubled = pool(x, torch.tensor([1.0, 2.0, 1.0, 1.0]))
    assert close(doubled, pool(torch.cat([x, x[1:2]])))
    assert not close(doubled, pool(x))


@keeps("simplex")
def test_probabilities_stay_probabilities(method: Method) -> None:
    pooled = method.load()(POOLS[method.name](K, N, C), WEIGHTS).exp()
    assert torch.allclose(pooled.sum(-1), torch.ones(N, dtype=torch.float64), atol=1e-12)
    assert bool((pooled >= 0).all())


@pytest.mark.parametrize("method", [m for m in methods("pool") if "simplex" in m.breaks], ids=lambda m: m.name)
def test_what_breaks_the_simplex_leaves_it(method: Method) -> None:
    pooled = method.load()(POOLS[method.name](K, N, C))
    assert not torch.allclose(pooled.exp().sum(-1), torch.ones(N, dtype=torch.float64), atol=0.1)
    assert not torch.allclose(pooled.sigmoid().sum(-1), torch.ones(N, dtype=torch.float64), atol=0.1)


@pytest.mark.parametrize("method", [m for m in methods("pool") if "copies" in m.breaks], ids=lambda m: m.name)
def test_what_breaks_the_identity_changes_copies(method: Method) -> None:
    x = POOLS[method.name](1, N, C)
    assert not close(method.load()(x.expand(K, -1, -1), WEIGHTS), x[0])
    assert not close(method.load()(x), x[0])


@every
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_dtype_and_shape_are_kept(method: Method, dtype: torch.dtype) -> None:
    x = POOLS[method.name](K, N, C)
    pooled = method.load()(x.to(dtype))
    assert pooled.dtype is dtype
    assert pooled.shape == x.shape[1:]
    # Arithmetic is in float64, so narrow outputs cost no more than their own rounding.
    slack = 4 * torch.finfo(dtype).eps
    assert torch.allclose(pooled.to(torch.float64), method.load()(x), rtol=slack, atol=slack)


@every
def test_dense_outputs_are_pooled_place_by_place(method: Method) -> None:
    x = POOLS[method.name](K, N * 2, C)
    dense = method.load()(x.view(K, N, 2, -1), WEIGHTS)
    assert close(dense, method.load()(x, WEIGHTS).view(N, 2, -1))


@every
def test_weights_may_differ_from_example_to_example(method: Method) -> None:
    x, pool = POOLS[method.name](K, N, C), method.load()
    each = torch.rand(K, N, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    rows = [pool(x[:, n : n + 1], each[:, n]) for n in range(N)]
    assert close(pool(x, each), torch.cat(rows))


@every
def test_inputs_are_untouched(method: Method) -> None:
    x, weights = POOLS[method.name](K, N, C), WEIGHTS.clone()
    before = x.clone()
    method.load()(x, weights)
    assert torch.equal(x, before)
    assert torch.equal(weights, WEIGHTS)
