"""Known answers of merges by magnitude and sign: TIES in its published forms, DELLA, breadcrumbs, SCE."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import combinations
from typing import Any

import pytest
import torch
from torch import Tensor

from merge import slow
from merge.slow import coarse, of
from pluria.core.ensemble import stack
from pluria.merge import Rule, breadcrumbs, dare, della, leafwise, sce, ties
from pluria.numbers.key import MERGING, Key, tensor_id
from pluria.numbers.philox import words

SPECS = ("paper", "mergekit", "peft", "sd-mecha")
WEIGHTS = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)

# Two tensors of three task vectors, by hand. A third stays: one element of `a` and two of `b`, or three of all nine.
# In `paper`, a[1] has the votes -5, -6 and 10, so the mean of -10 and -20 by weights .5 and .3 stays, -13.75.
# In b[2], the votes -1.5, .75 and .6 elect minus by weight, -3, 2.5 and 3 plus, and so do two signs of three.
A = [[40.0, -10.0, 5.0], [-30.0, -20.0, 2.5], [-10.0, 50.0, 1.25]]
B = [[1.0, 2.0, -3.0, 0.5, 0.0, 6.0], [-1.0, 2.0, 2.5, 0.5, 0.0, -6.0], [1.0, -2.0, 3.0, -7.0, 0.0, 0.5]]
GOLDEN = {
    "paper": ([40.0, -13.75, 0.0], [0.0, 0.0, 0.0, -7.0, 0.0, 6.0]),
    "mergekit": ([40.0, 50.0, 0.0], [0.0, 0.0, -3.0, -7.0, 0.0, 6.0]),
    "peft": ([60.0, 30.0, 0.0], [0.0, 0.0, 2.025, -4.2, 0.0, 9.0]),
    "sd-mecha": ([40.0, 50.0, 0.0], [0.0, 0.0, 2.7, -7.0, 0.0, 6.0]),
}


@pytest.mark.parametrize("spec", SPECS)
def test_golden_vectors_of_ties(spec: str) -> None:
    members, base = of(A, B)
    merged = leafwise(members.reweight(WEIGHTS), ties(density=1 / 3, spec=spec), base=base)  # type: ignore[arg-type]
    for name, wanted in zip("ab", GOLDEN[spec], strict=True):
        assert merged[name].tolist() == pytest.approx(wanted), name


@pytest.mark.parametrize("spec", SPECS)
@pytest.mark.parametrize("density", [0.05, 0.2, 0.5, 0.99, 1.0])
def test_ties_is_the_slow_form(spec: str, density: float) -> None:
    for seed, size in enumerate((1, 2, 7, 40)):
        a, b = coarse(3, size, seed), coarse(3, 11, seed + 50)
        members, base = of(a, b)
        rule = ties(density=density, spec=spec, scale=0.5)  # type: ignore[arg-type]
        merged = leafwise(members.reweight(WEIGHTS), rule, base=base)
        for name, wanted in zip("ab", slow.ties([a, b], WEIGHTS.tolist(), density, spec), strict=True):
            assert merged[name].tolist() == pytest.approx([value / 2 for value in wanted]), (name, size)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_undivided_is_the_sum_of_those_that_agree(dtype: torch.dtype) -> None:
    a, b = coarse(3, 5000, 1), coarse(3, 7, 2)
    members, base = of(a, b, dtype)
    weights = torch.tensor([0.5, 0.25, 0.25], dtype=torch.float64)
    wanted = [
        slow.elect([row[i] for row in a], weights.tolist(), weights.tolist(), 1.0, False, True) for i in range(5000)
    ]
    for rule in (
        ties(density=1.0, spec="mergekit", divided=False),
        dare(density=1.0, elect=True, divided=False),
        della(density=1.0, epsilon=0.0, divided=False),
        breadcrumbs(density=1.0, gamma=0.0, elect=True, scale=1.0, divided=False),
    ):
        merged = leafwise(members.reweight(weights), rule, base=base)["a"]
        assert merged.tolist() == pytest.approx(wanted)


def test_forms_of_ties_differ() -> None:
    members, base = of(coarse(3, 60, 1), coarse(3, 60, 2))
    weighted = members.reweight(WEIGHTS)
    made = [leafwise(weighted, ties(density=0.3, spec=spec), base=base)["a"] for spec in SPECS]  # type: ignore[arg-type]
    assert not any(torch.allclose(one, other) for one, other in combinations(made, 2))


def test_where_votes_are_zero_the_paper_asks_all_places() -> None:
    a, b = [[1.0], [-1.0]], [[-2.0, -3.0], [-2.0, -3.0]]
    members, base = of(a, b)
    assert leafwise(members, ties(density=1.0, spec="paper"), base=base)["a"].tolist() == [-1.0]
    assert leafwise(members, ties(density=1.0, spec="mergekit"), base=base)["a"].tolist() == [1.0]


def test_exactly_the_density_stays_where_magnitudes_are_equal() -> None:
    """A threshold alone would keep all 200,000: every magnitude is one of two."""
    draw = torch.Generator().manual_seed(0)
    delta = torch.randint(0, 2, (200_000,), generator=draw) * 2.0 - 1.0
    base = {"w": torch.zeros(200_000, dtype=torch.bfloat16)}
    members = stack([{"w": delta.to(torch.bfloat16)}])
    for spec in SPECS:
        merged = leafwise(members, ties(density=0.2, spec=spec), base=base)["w"]  # type: ignore[arg-type]
        assert int((merged != 0).sum()) == 40_000
        assert bool((merged[:40_000] != 0).all())  # the first of equal ones


def test_threads_change_nothing() -> None:
    draw = torch.Generator().manual_seed(0)
    made = [{n: torch.randn(s, generator=draw) for n, s in (("a", 300_000), ("b", 5_000))} for _ in range(4)]
    members, base = stack(made[:3]), made[3]
    for rule in (ties(), ties(spec="peft"), della(), breadcrumbs(), sce(select=0.3)):
        one = leafwise(members, rule, base=base)
        two = leafwise(members, rule, base=base, threads=2, chunk=1)
        assert all(torch.equal(one[name], two[name]) for name in one)


@pytest.mark.parametrize("make", [ties, sce, breadcrumbs, della])
def test_sixteen_bits_are_within_an_ulp_of_float64(make: Any) -> None:
    draw = torch.Generator().manual_seed(3)
    made = [{"w": torch.randn(60, 50, generator=draw).to(torch.bfloat16)} for _ in range(4)]
    wide = [{"w": params["w"].double()} for params in made]
    narrow = leafwise(stack(made[:3]), make(), base=made[3])["w"]
    exact = leafwise(stack(wide[:3]), make(), base=wide[3])["w"]
    near = (narrow.double() - exact).abs() <= exact.abs() * 2.0**-8 + 1e-6
    # Votes that are equal in float64 may be unequal in float32, and then another sign is elected.
    assert float(near.double().mean()) > 0.999


@pytest.mark.parametrize("size", [1, 2, 3, 10, 99, 100, 101, 200])
@pytest.mark.parametrize(
    ("density", "gamma"), [(0.1, 0.01), (0.5, 0.0), (0.3, 0.5), (1.0, 0.0), (0.9, 0.1), (1.0, 0.01)]
)
def test_breadcrumbs_of_every_size(size: int, density: float, gamma: float) -> None:
    a, b = coarse(3, size, size), coarse(3, 4, size + 1)
    members, base = of(a, b)
    merged = leafwise(members, breadcrumbs(density=density, gamma=gamma, scale=1.0), base=base)["a"]
    kept = [slow.breadcrumbs(row, density, gamma) for row in a]
    assert merged.tolist() == pytest.approx([sum(column) for column in zip(*kept, strict=True)])
    assert sum(sum(value != 0 for value in row) for row in kept) <= 3 * max(1, round(density * size))


SIZES = [*range(1, 40), *range(40, 201, 10)]
"""Shares of 50, 100 and 200 elements are whole numbers, where rounding decides."""


@pytest.mark.parametrize("sizes", [SIZES, pytest.param(range(1, 201), marks=pytest.mark.study)], ids=["some", "all"])
@pytest.mark.parametrize(("density", "gamma"), [(0.14, 0.01), (0.5, 0.0), (1.0, 0.01)])
def test_breadcrumbs_of_tensors_of_1_to_200_elements(density: float, gamma: float, sizes: Sequence[int]) -> None:
    rows = {f"{size}": coarse(3, size, size) for size in sizes}
    members = stack([{n: torch.tensor(of_all[k], dtype=torch.float64) for n, of_all in rows.items()} for k in range(3)])
    base = {name: torch.zeros(int(name), dtype=torch.float64) for name in rows}
    merged = leafwise(members, breadcrumbs(density=density, gamma=gamma, scale=1.0), base=base)
    for name, deltas in rows.items():
        kept = [slow.breadcrumbs(row, density, gamma) for row in deltas]
        wanted = torch.tensor(kept, dtype=torch.float64).sum(0)
        assert torch.allclose(merged[name], wanted, rtol=1e-6, atol=1e-12), name
        assert any(any(row) for row in kept), name  # nothing loses its whole task vector


def test_breadcrumbs_of_hand() -> None:
    # Of ten, one is dropped from the top (9), three stay (8, 7, 6).
    row = [5.0, -9.0, 1.0, 8.0, 2.0, -7.0, 3.0, 6.0, 4.0, 0.0]
    members, base = of([row, row], [[1.0], [1.0]])
    merged = leafwise(members, breadcrumbs(density=0.3, gamma=0.1, scale=0.5), base=base)["a"]
    assert merged.tolist() == [0, 0, 0, 8, 0, -7, 0, 6, 0, 0]
    elected = leafwise(members, breadcrumbs(density=0.3, gamma=0.1, scale=0.5, elect=True), base=base)["a"]
    assert elected.tolist() == [0, 0, 0, 4, 0, -3.5, 0, 3, 0, 0]


@pytest.mark.parametrize("spec", ["paper", "mergekit"])
@pytest.mark.parametrize("shape", [(4, 6), (24,), (6, 1), (2, 3, 4)])
def test_della_is_the_slow_form(spec: str, shape: tuple[int, ...]) -> None:
    deltas = torch.tensor(coarse(3, 24, 4), dtype=torch.float64)[:, : torch.Size(shape).numel()]
    members = stack([{"w": delta.view(shape)} for delta in deltas])
    rule = della(density=0.5, epsilon=0.3, elect=False, spec=spec, key=5)  # type: ignore[arg-type]
    base = {"w": torch.zeros(shape, dtype=torch.float64)}
    merged = leafwise(members.reweight(WEIGHTS), rule, base=base)["w"].flatten()
    count = deltas.shape[1]
    row = count // shape[0] if len(shape) > 1 else count
    wanted = torch.zeros(count, dtype=torch.float64)
    for k, delta in enumerate(deltas.tolist()):
        chance = [p for i in range(0, count, row) for p in slow.chances(delta[i : i + row], 0.5, 0.3, spec)]
        drawn = words(Key(5), tensor=tensor_id("w"), group=k, stream=MERGING, start=0, stop=count) / 2**32
        stays = drawn < torch.tensor(chance, dtype=torch.float64)
        left = torch.where(stays, deltas[k], 0.0)
        grown = (
            left / torch.tensor(chance, dtype=torch.float64)
            if spec == "paper"
            else left * deltas[k].abs().sum() / left.abs().sum()
        )
        wanted += 3 * WEIGHTS[k] * grown
    torch.testing.assert_close(merged, wanted, rtol=1e-12, atol=1e-12)


def test_large_elements_stay_more_often() -> None:
    draws, row = 4000, torch.tensor([0.1, 0.2, 0.3, 0.4, 0.5], dtype=torch.float64)
    members, base = stack([{"w": row.expand(draws, 5).clone()}]), {"w": torch.zeros(draws, 5, dtype=torch.float64)}
    for spec, width in (("paper", 0.2), ("mergekit", 0.4)):
        merged = leafwise(members, della(density=0.5, epsilon=0.2, elect=False, spec=spec), base=base)["w"]  # type: ignore[arg-type]
        share = (merged != 0).double().mean(0)
        wanted = 0.5 + width * torch.tensor([-0.5, -0.25, 0.0, 0.25, 0.5], dtype=torch.float64)
        assert bool(((share - wanted).abs() < 4 * (0.25 / draws) ** 0.5).all())
        mean, error = merged.mean(0), 4 * row * (1 / (0.4 * draws)) ** 0.5
        assert spec == "mergekit" or bool(((mean - row).abs() < error).all())


@pytest.mark.parametrize(
    ("make", "options", "message"),
    [
        (ties, {"density": 0.0}, r"density lies in \(0, 1\]; got 0.0"),
        (ties, {"density": 1.5}, r"density lies in \(0, 1\]; got 1.5"),
        (ties, {"spec": "own"}, "'mergekit', 'peft', 'sd-mecha'; got 'own'"),
        (breadcrumbs, {"density": 0.0}, r"density lies in \(0, 1\]"),
        (breadcrumbs, {"gamma": 1.2}, r"gamma lies in \[0, 1\]; got 1.2"),
        (breadcrumbs, {"gamma": -0.1}, r"gamma lies in \[0, 1\]"),
        (della, {"density": 0.1, "epsilon": 0.3}, "chances go from -0.05 to 0.25"),
        (della, {"density": 0.9, "epsilon": 0.3}, "chances go from 0.75 to 1.05"),
        (della, {"density": 0.5, "epsilon": -0.1}, "within"),
        (della, {"spec": "peft"}, "spec is 'paper' or 'mergekit'; got 'peft'"),
        (sce, {"select": 0.0}, r"select lies in \(0, 1\]"),
        (sce, {"spec": "own"}, "spec is one of 'paper', 'mergekit'; got 'own'"),
    ],
)
def test_options_that_are_none_are_refused(make: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make(**options)


def test_the_golden_vectors_can_fail() -> None:
    members, base = of(A, B)
    other: Tensor = leafwise(members.reweight(WEIGHTS), ties(density=0.5), base=base)["b"]
    assert other.tolist() != pytest.approx(GOLDEN["paper"][1])


@pytest.mark.parametrize("method", ["ties", "paper", "breadcrumbs", "dare", "della"])
def test_each_member_has_its_own_density(method: str) -> None:
    """As if each was trimmed by itself, and what is left merged with nothing trimmed."""
    deltas, own = torch.tensor(coarse(2, 200, 3), dtype=torch.float64), [0.2, 0.7]
    base = {"w": torch.zeros(200, dtype=torch.float64)}
    rules: dict[str, Callable[..., Rule]] = {
        "ties": lambda d: ties(density=d, spec="mergekit"),
        "paper": lambda d: ties(density=d),
        "breadcrumbs": lambda d: breadcrumbs(density=d, gamma=0.05, scale=1.0),
        "dare": lambda d: dare(density=d, key=3),
        "della": lambda d: della(density=d, epsilon=0.1, elect=False, key=3),
    }
    rule, last = rules[method], {"ties": ties(density=1.0, spec="mergekit"), "paper": ties(density=1.0)}
    members = stack([{"w": row} for row in deltas])

    def alone(k: int) -> Tensor:
        """Member k with nothing beside it, at its own place."""
        lonely = deltas * (torch.arange(2) == k)[:, None]
        return leafwise(stack([{"w": row} for row in lonely]), rule(own[k]), base=base)["w"]

    made = leafwise(members, rule(own), base=base)["w"]
    if method in last:
        trimmed = stack([{"w": alone(k)} for k in range(2)])
        assert torch.allclose(made, leafwise(trimmed, last[method], base=base)["w"])
    else:
        assert torch.allclose(made, alone(0) + alone(1))
    assert torch.equal(
        leafwise(members, rule([0.7, 0.7]), base=base)["w"], leafwise(members, rule(0.7), base=base)["w"]
    )
    with pytest.raises(ValueError, match="takes 3 models; got 2"):
        leafwise(members, rule([0.5, 0.6, 0.7]), base=base)
    with pytest.raises(ValueError, match=r"density lies in \(0, 1\]; got 2"):
        rule([0.5, 2])
    with pytest.raises(ValueError, match="one for each member; got none"):
        rule([])
