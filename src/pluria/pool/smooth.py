"""The minimum of a smooth function of some tensors, by L-BFGS over all rows at once: no draws, no step size.

    inputs are standardised first:  (x - centre) / scale,  so that one ridge suits features of any unit

Everything is float64, and the same rows give the same bits. Source: Nocedal, Mathematics of Computation 1980.
"""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

Rows = tuple[tuple[float, ...], ...]
"""A matrix as plain data, row by row."""

STEPS = 500
"""Most steps of a fit; convex ones need far fewer."""


def smooth_minimum(start: Sequence[Tensor], loss: Callable[..., Tensor]) -> list[Tensor]:
    """The tensors, float64, at which `loss(*tensors)` has its least value, searched from `start`."""
    with torch.enable_grad():
        leaves = [tensor.detach().clone().requires_grad_() for tensor in start]
        search = torch.optim.LBFGS(
            leaves,
            max_iter=STEPS,
            history_size=20,
            tolerance_grad=1e-10,
            tolerance_change=1e-15,
            line_search_fn="strong_wolfe",
        )

        def closure() -> Tensor:
            search.zero_grad()
            value = loss(*leaves)
            value.backward()  # type: ignore[no-untyped-call]
            return value

        search.step(closure)  # type: ignore[no-untyped-call]
    return [leaf.detach() for leaf in leaves]


def standard(inputs: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of each column of `[M, D]`; a column that does not vary has scale one."""
    centre = inputs.mean(0)
    scale = (inputs - centre).square().mean(0).sqrt()
    return centre, torch.where(scale > 1e-12 * (1 + centre.abs()), scale, 1.0)


def check_ridge(ridge: float) -> None:
    """Raise ValueError unless `ridge` is finite and not negative."""
    if not (math.isfinite(ridge) and ridge >= 0):
        raise ValueError(f"ridge must be 0 or more, and finite; got {ridge}")


def rows_of(matrix: Tensor) -> Rows:
    """A matrix as plain data."""
    return tuple(tuple(row) for row in matrix.tolist())


def vector_of(vector: Tensor) -> tuple[float, ...]:
    """A vector as plain data."""
    return tuple(vector.tolist())


def check_numbers(name: str, rows: Sequence[Sequence[float]], columns: int) -> None:
    """Raise ValueError unless `rows` are finite numbers, `columns` in each."""
    if not all(len(row) == columns and all(map(math.isfinite, row)) for row in rows):
        raise ValueError(f"{name} must hold finite numbers, {columns} in each row")
