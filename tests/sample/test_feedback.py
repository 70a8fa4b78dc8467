"""Rounding with error feedback against the plain double loop with the factor of the inverse, weight by weight."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from pluria.numbers.format import Integer
from pluria.sample import feedback
from pluria.sample.feedback import Columns, factor, round_columns

RANDOM = torch.Generator()


@pytest.fixture(autouse=True)
def _from_the_start() -> None:
    RANDOM.manual_seed(0)


def correlated(blocks: int, size: int) -> Tensor:
    x = torch.randn(blocks, 3 * size, size, generator=RANDOM, dtype=torch.float64)
    x = x @ (torch.eye(size) + 0.5 * torch.randn(size, size, generator=RANDOM) / size**0.5).double()
    return x.mT @ x / x.shape[1] + 0.5  # the mean of inputs is seldom zero


def by_hand(columns: Columns, second: Tensor, damping: float, uniforms: Tensor | None) -> tuple[Tensor, int]:
    """e = (w_j - q_j) / C_jj; w_k -= e C_jk for k > j, with the upper factor C of the damped inverse, in float64."""
    codes, clipped = torch.zeros(columns.weight.shape, dtype=torch.int64), 0
    for block, moments in enumerate(second):
        damped = moments + damping * float(moments.diagonal().mean()) * torch.eye(len(moments), dtype=torch.float64)
        upper = torch.linalg.cholesky(torch.linalg.inv(damped), upper=True)
        weight = columns.weight[block].double()
        for row in range(weight.shape[1]):
            w = weight[:, row].tolist()
            for j in range(len(w)):
                group = int(columns.group[block, j])
                scale = float(columns.scale[block, group, row])
                zero = columns.format.top if columns.zero is None else int(columns.zero[block, group, row])
                top = columns.format.top * (2 if columns.zero is None else 1) - zero
                v = min(max(w[j] / scale, -zero), top)
                clipped += not -zero - 1e-5 <= w[j] / scale <= top + 1e-5
                unit = round(v) if uniforms is None else math.floor(v) + (float(uniforms[block, j, row]) < v % 1)
                codes[block, j, row] = unit + zero
                error = (w[j] - scale * unit) / float(upper[j, j])
                for k in range(j + 1, len(w)):
                    w[k] -= error * float(upper[j, k])
    return codes, clipped


def example(bits: int, symmetric: bool, blocks: int, group: int, order: bool, size: int = 12) -> tuple[Columns, Tensor]:
    format, rows = Integer(bits, symmetric=symmetric), 5
    weight = torch.randn(blocks, size, rows, generator=RANDOM)
    parts = weight.unflatten(1, (-1, group))
    scale, zero = format.scale(parts.amin(2), parts.amax(2))
    second = correlated(blocks, size)
    at = torch.arange(size).expand(blocks, size)
    if order:
        at = second.diagonal(dim1=-2, dim2=-1).argsort(descending=True)
        weight = weight.gather(1, at.unsqueeze(2).expand_as(weight))
        second = torch.stack([one[place][:, place] for one, place in zip(second, at, strict=True)])
    lower = factor(second, 0.01)
    assert lower is not None
    return Columns(format, weight, lower, scale, zero, at // group), second


@pytest.mark.parametrize("columns", [1, 5, 128])
@pytest.mark.parametrize(
    ("bits", "symmetric", "blocks", "group", "order"),
    [(4, True, 1, 12, False), (3, True, 2, 4, True), (2, False, 3, 6, False), (4, False, 2, 12, True)],
)
@pytest.mark.parametrize("nearest", [False, True])
def test_the_blocked_form_is_the_double_loop(
    monkeypatch: pytest.MonkeyPatch, columns: int, bits: int, symmetric: bool, blocks: int, group: int, order: bool,
    nearest: bool,
) -> None:  # fmt: skip
    monkeypatch.setattr(feedback, "COLUMNS", columns)
    made, second = example(bits, symmetric, blocks, group, order)
    uniforms = None if nearest else torch.rand(made.weight.shape, generator=RANDOM)
    codes, clipped = round_columns(made, uniforms)
    wanted, ends = by_hand(made, second, 0.01, uniforms)
    assert torch.equal(codes.long(), wanted)
    assert clipped == ends
    assert not torch.equal(codes.long(), by_hand(made, torch.eye(12).expand(blocks, 12, 12), 0.01, uniforms)[0])


def test_two_columns_by_hand() -> None:
    # H = [[4, 2], [2, 2]] = U D^2 U^T with U_01 = 1: all that the first column loses is added to the second.
    second = torch.tensor([[[4.0, 2.0], [2.0, 2.0]]], dtype=torch.float64)
    lower = factor(second, 0.0)
    assert torch.allclose(lower, torch.tensor([[[1.0, 0.0], [1.0, 1.0]]]))
    weight = torch.tensor([[[1.3], [2.4]]])
    made = Columns(Integer(4), weight, lower, torch.ones(1, 1, 1), None, torch.zeros(1, 2, dtype=torch.int64))
    assert round_columns(made, None)[0].flatten().tolist() == [1 + 7, 3 + 7]  # 1.3 -> 1 and 2.4 + 0.3 -> 3
    assert round_columns(made, torch.full((1, 2, 1), 0.25))[0].flatten().tolist() == [2 + 7, 2 + 7]  # 2.4 - 0.7 -> 2
    assert round_columns(made, torch.full((1, 2, 1), 0.25))[1] == 0


def test_diagonal_moments_feed_nothing_back() -> None:
    second = torch.diag_embed(torch.rand(3, 40, generator=RANDOM, dtype=torch.float64) + 0.1)
    assert torch.equal(factor(second, 0.01), torch.eye(40).expand(3, 40, 40))


def test_a_block_without_inputs_feeds_nothing_back() -> None:
    second = torch.stack([torch.zeros(4, 4, dtype=torch.float64), correlated(1, 4)[0]])
    lower = factor(second, 0.01)
    assert torch.equal(lower[0], torch.eye(4))
    assert not torch.equal(lower[1], torch.eye(4))


@pytest.mark.parametrize("count", [1, 7, 15])
def test_too_few_inputs_have_no_factor(count: int) -> None:
    x = torch.randn(count, 16, generator=RANDOM, dtype=torch.float64)
    second = (x.T @ x / count).unsqueeze(0)
    assert factor(second, 0.0) is None
    assert factor(second, 0.01) is not None
    assert factor(-second, 0.01) is None
