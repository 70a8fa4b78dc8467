"""Laws of pools that are fitted, for every row of the catalogue; and what a row says it breaks is really broken."""

from __future__ import annotations

import dataclasses
import inspect
import json

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from laws.examples import FITS, Pool, rows
from pluria.pool import mean_logit, mean_probability
from pluria.recipe.catalogue import methods
from pluria.recipe.method import Method

every = pytest.mark.parametrize("method", methods("fit"), ids=lambda m: m.name)
K, N, C = 4, 200, 4


def keeps(law: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("method", rows("fit", law), ids=lambda m: m.name)


def breaks(law: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("method", [m for m in methods("fit") if law in m.breaks], ids=lambda m: m.name)


def labelled(members: int = K, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Log-probabilities [K, N, C] that know the targets [N], each member less than the one before."""
    generator = torch.Generator().manual_seed(seed)
    y = torch.randint(C, (N,), generator=generator)
    noise = torch.randn(members, N, C, generator=generator, dtype=torch.float64) * 1.5
    known = torch.nn.functional.one_hot(y, C) * torch.linspace(2, 1, members).double()[:, None, None]
    return (noise + known).log_softmax(-1), y


def fitted(method: Method, x: Tensor, y: Tensor) -> Pool:
    return FITS[method.name](method.load(), x, y)


def close(one: Tensor, other: Tensor) -> bool:
    return one.shape == other.shape and torch.allclose(one, other, rtol=1e-7, atol=1e-7)


@keeps("single")
def test_one_member_is_its_own_pool(method: Method) -> None:
    x, y = labelled(1)
    assert close(fitted(method, x, y)(x), x[0])


@breaks("single")
def test_what_breaks_the_identity_changes_one_member(method: Method) -> None:
    x, y = labelled(1)
    assert not close(fitted(method, x, y)(x), x[0])


@keeps("copies")
def test_copies_of_one_member_do_what_it_does_alone(method: Method) -> None:
    x, y = labelled(1)
    many = x.expand(K, N, C)
    assert close(fitted(method, many, y)(many), fitted(method, x, y)(x))


@keeps("order")
def test_members_have_no_order(method: Method) -> None:
    (x, y), order = labelled(), [2, 0, 3, 1]
    pool = fitted(method, x, y)
    assert close(fitted(method, x[order], y)(x[order]), pool(x))
    if method.name != "fit_extremised":  # it treats members alike
        assert not close(pool(x[order]), pool(x))


@keeps("simplex")
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_probabilities_stay_probabilities(method: Method, dtype: torch.dtype) -> None:
    x, y = labelled()
    pooled = fitted(method, x, y)(x.to(dtype))
    assert (pooled.dtype, pooled.shape) == (dtype, (N, C))
    assert torch.allclose(pooled.exp().sum(-1), torch.ones(N, dtype=dtype), atol=1e-6)


@keeps("better")
def test_no_worse_than_equal_weights_where_it_was_fitted(method: Method) -> None:
    for seed in range(3):
        x, y = labelled(seed=seed)
        equal = mean_logit if method.name == "fit_log_linear" else mean_probability
        assert cross_entropy(fitted(method, x, y)(x), y) < cross_entropy(equal(x), y)


@keeps("text")
def test_fields_go_through_json(method: Method) -> None:
    x, y = labelled()
    pool = fitted(method, x, y)
    again = type(pool)(**json.loads(json.dumps(dataclasses.asdict(pool))))  # type: ignore[call-overload]
    assert again == pool
    assert torch.equal(again(x), pool(x))


@every
def test_fitting_leaves_everything_as_it_was(method: Method) -> None:
    x, y = labelled()
    before, targets, state = x.clone(), y.clone(), torch.random.get_rng_state()
    first = fitted(method, x, y)(x)
    assert torch.equal(fitted(method, x, y)(x), first)
    assert torch.equal(x, before)
    assert torch.equal(y, targets)
    assert torch.equal(torch.random.get_rng_state(), state)


@every
def test_dense_rows_are_rows(method: Method) -> None:
    x, y = labelled()
    if method.name == "zpe":
        with pytest.raises(ValueError, match=r"\[K, rows, C\]"):
            method.load()(x.view(K, 50, 4, C), x.view(K, 50, 4, C))
        return
    if method.name == "fit_cascade":
        with pytest.raises(ValueError, match="asks for whole examples"):
            fitted(method, x.view(K, 50, 4, C), y.view(50, 4))
        return
    dense = fitted(method, x.view(K, 50, 4, C), y.view(50, 4))
    assert close(dense(x), fitted(method, x, y)(x))
    assert dense(x.view(K, 50, 4, C)).shape == (50, 4, C)


@every
def test_ignored_rows_do_not_count(method: Method) -> None:
    if "ignore_index" not in inspect.signature(method.load()).parameters:
        assert method.name in ("zpe", "fit_quantile_weights")  # without labels; NaN is what is missing there
        return
    x, y = labelled()
    holes = torch.arange(N) % 3 == 0
    marked = y.masked_fill(holes, -100)
    assert close(fitted(method, x, marked)(x), fitted(method, x[:, ~holes], y[~holes])(x))
