"""Odd input of every pool and every fit: what is defined, and what is refused."""

from __future__ import annotations

import inspect
import math

import pytest
import torch

from laws.examples import POOLS
from laws.test_fit import C, K, N, fitted, labelled
from pluria.recipe.catalogue import methods
from pluria.recipe.method import Method

every_pool = pytest.mark.parametrize("method", methods("pool"), ids=lambda m: m.name)
every_fit = pytest.mark.parametrize("method", methods("fit"), ids=lambda m: m.name)
of_classes = pytest.mark.parametrize(
    "method", [m for m in methods("pool") if "simplex" in m.laws], ids=lambda m: m.name
)
labels = pytest.mark.parametrize(
    "method",
    [m for m in methods("fit") if "ignore_index" in inspect.signature(m.load()).parameters],
    ids=lambda m: m.name,
)


@every_pool
def test_weights_need_no_sum_of_one(method: Method) -> None:
    x, pool = POOLS[method.name](3, 6, 5), method.load()
    weights = torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64)
    torch.testing.assert_close(pool(x, weights), pool(x, weights / 6), rtol=1e-12, atol=1e-12)


@every_pool
@pytest.mark.parametrize("weights", [[1.0, -1.0, 1.0], [0.0] * 3, [1.0, math.nan, 1.0], [1.0, math.inf, 1.0], [1.0]])
def test_weights_that_are_none_are_refused(method: Method, weights: list[float]) -> None:
    with pytest.raises(ValueError, match="weights"):
        method.load()(POOLS[method.name](3, 6, 5), torch.tensor(weights))


@every_pool
def test_nan_stays_in_its_row(method: Method) -> None:
    x, pool = POOLS[method.name](3, 6, 5), method.load()
    broken = x.clone()
    broken[1, 2] = math.nan
    pooled = pool(broken)
    others = [0, 1, 3, 4, 5]
    assert torch.equal(pooled[others], pool(x)[others])
    if "quantiles" in method.name:  # NaN is a forecast that is missing
        torch.testing.assert_close(pooled[2], pool(x[[0, 2]])[2])
    else:
        assert bool(pooled[2].isnan().all())


@of_classes
def test_a_class_that_nobody_holds_possible_stays_so(method: Method) -> None:
    x = POOLS[method.name](3, 6, 5)
    x[..., 4] = -math.inf
    pooled = method.load()(x)
    assert bool((pooled[:, 4] == -math.inf).all())
    torch.testing.assert_close(pooled[:, :4], method.load()(x[..., :4]), rtol=1e-12, atol=1e-12)


@labels
def test_a_fit_refuses_nan(method: Method) -> None:
    x, y = labelled()
    x[1, 3, 2] = math.nan
    with pytest.raises(ValueError, match=r"NaN|finite"):
        fitted(method, x, y)


@labels
def test_a_fit_without_a_row_of_some_class(method: Method) -> None:
    x, y = labelled()
    kept = y != 1
    pooled = fitted(method, x[:, kept], y[kept])(x)
    assert bool(pooled.isfinite().all())
    assert pooled.shape == (N, C)


@labels
def test_a_fit_on_a_class_that_nobody_holds_possible(method: Method) -> None:
    x, y = labelled()
    kept = y != 1
    barred = x.clone()
    barred[..., 1] = -math.inf
    if method.name == "fit_fusion":
        with pytest.raises(ValueError, match="finite"):
            fitted(method, barred[:, kept], y[kept])
        return
    pooled = fitted(method, barred[:, kept], y[kept])(barred)
    assert bool((pooled[:, 1] == -math.inf).all())
    assert bool(pooled[:, [0, 2, 3]].isfinite().all())
    with pytest.raises(ValueError, match=r"impossible|probability zero"):
        fitted(method, barred, y)


@every_fit
def test_members_that_are_equal_and_members_that_are_one(method: Method) -> None:
    x, y = labelled(1)
    for members in (x, x.expand(K, -1, -1)):
        assert bool(fitted(method, members, y)(members).isfinite().all())


@labels
def test_few_rows_are_refused(method: Method) -> None:
    x, y = labelled()
    with pytest.raises(ValueError, match=r"20 (labelled )?rows"):
        fitted(method, x[:, :19], y[:19])
