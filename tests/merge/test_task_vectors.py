"""Known answers of task arithmetic, DARE and model stock."""

from __future__ import annotations

import os
import subprocess
import sys
from itertools import combinations

import pytest
import torch
from torch import Tensor

from pluria.core.ensemble import Ensemble, single, stack
from pluria.core.params import Params
from pluria.merge import (
    Rule,
    breadcrumbs,
    corrected_mean,
    dare,
    leafwise,
    model_stock,
    sce,
    task_arithmetic,
    ties,
)
from pluria.numbers.key import MERGING, Key, tensor_id
from pluria.numbers.philox import words


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def around(base: Tensor, *deltas: Tensor) -> tuple[Ensemble, Params]:
    return stack([{"w": base + delta} for delta in deltas]), {"w": base}


BASE = torch.tensor([10.0, 20.0, 30.0], dtype=torch.float64)
ONE = torch.tensor([1.0, -2.0, 0.0], dtype=torch.float64)
TWO = torch.tensor([3.0, 4.0, -6.0], dtype=torch.float64)


def test_task_arithmetic_of_hand() -> None:
    members, base = around(BASE, ONE, TWO)
    assert leafwise(members, task_arithmetic(scale=0.5), base=base)["w"].tolist() == [12.0, 21.0, 27.0]
    assert leafwise(members, task_arithmetic(scale=0.5, normalise=True), base=base)["w"].tolist() == [11.0, 20.5, 28.5]
    assert leafwise(members, task_arithmetic(scale=[-1.0, 2.0]), base=base)["w"].tolist() == [15.0, 30.0, 18.0]
    assert leafwise(single({"w": BASE + ONE}), task_arithmetic(scale=1.0), base=base)["w"].tolist() == [11, 18, 30]
    weighted = members.reweight(torch.tensor([3.0, 1.0]))  # K w is 1.5 and .5
    assert leafwise(weighted, task_arithmetic(scale=1.0), base=base)["w"].tolist() == [13.0, 19.0, 27.0]


def test_scales_are_one_or_one_each() -> None:
    members, base = around(BASE, ONE, TWO)
    with pytest.raises(ValueError, match=r"one for each of the 2 members; got \[3\]"):
        leafwise(members, task_arithmetic(scale=[1.0, 2.0, 3.0]), base=base)
    with pytest.raises(ValueError, match="starts from a base"):
        leafwise(members, task_arithmetic())


def test_two_members_in_stock() -> None:
    cosine = float((ONE @ TWO) / (ONE.norm() * TWO.norm()))
    assert cosine < 0
    members, base = around(BASE, ONE, TWO)
    assert torch.equal(leafwise(members, model_stock(), base=base)["w"], BASE)
    ratio = 2 * cosine / (1 + cosine)
    torch.testing.assert_close(
        leafwise(members, model_stock(clamp=False), base=base)["w"], BASE + ratio * (ONE + TWO) / 2
    )


def test_stock_is_the_published_ratio_tensor_by_tensor() -> None:
    shift = normal(40, seed=9)
    deltas = [normal(40, seed=seed) + shift for seed in range(4)]
    members, base = around(normal(40, seed=20), *deltas)
    cosine = sum(float(a @ b / (a.norm() * b.norm())) for a, b in combinations(deltas, 2)) / 6
    ratio = 4 * cosine / (1 + 3 * cosine)
    assert 0.5 < ratio < 1
    torch.testing.assert_close(
        leafwise(members, model_stock(), base=base)["w"], base["w"] + ratio * torch.stack(deltas).mean(0)
    )


def test_stock_of_tasks_that_are_nothing_or_opposite() -> None:
    members, base = around(BASE, 0 * ONE, 0 * ONE)
    assert torch.equal(leafwise(members, model_stock(), base=base)["w"], BASE)
    members, base = around(BASE, TWO, -TWO)
    assert torch.equal(leafwise(members, model_stock(), base=base)["w"], BASE)
    with pytest.raises(ValueError, match=r"tensor 'w': task vectors cancel each other.*`clamp=True`, which keeps"):
        leafwise(members, model_stock(clamp=False), base=base)


def reference(deltas: Tensor, weights: Tensor, masks: Tensor, density: float, spec: str, elect: bool) -> Tensor:
    """DARE by loops over elements and members, float64."""
    count, size = deltas.shape
    merged = torch.zeros(size, dtype=torch.float64)
    grown = [[0.0] * size for _ in range(count)]
    for k in range(count):
        left = sum(abs(float(deltas[k, i])) for i in range(size) if masks[k, i])
        factor = float(deltas[k].abs().sum()) / left if spec == "mergekit" else 1 / density
        for i in range(size):
            grown[k][i] = float(deltas[k, i]) * factor if masks[k, i] else 0.0
    for i in range(size):
        column = [grown[k][i] for k in range(count)]
        mass = [count * float(w) for w in weights]
        if not elect:
            merged[i] = sum(m * c for m, c in zip(mass, column, strict=True))
            continue
        votes = column if spec == "peft" else [m * c for m, c in zip(mass, column, strict=True)]
        plus = sum(votes) >= 0
        agree = [k for k in range(count) if column[k] != 0 and (column[k] > 0) == plus]
        if agree and spec == "peft":
            merged[i] = sum(mass[k] * column[k] for k in agree) / len(agree)
        elif agree:
            merged[i] = sum(mass[k] * column[k] for k in agree) / sum(mass[k] for k in agree)
    return merged


@pytest.mark.parametrize("spec", ["paper", "mergekit", "peft"])
@pytest.mark.parametrize("elect", [False, True])
def test_dare_is_what_it_says(spec: str, elect: bool) -> None:
    base, deltas = normal(9, 7, seed=5), torch.stack([normal(9, 7, seed=seed) for seed in range(3)])
    members, origin = around(base, *deltas)
    weights = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)
    rule = dare(density=0.4, spec=spec, elect=elect, scale=0.7, key=3)  # type: ignore[arg-type]
    merged = leafwise(members.reweight(weights), rule, base=origin)["w"]
    drawn = [
        words(Key(3), tensor=tensor_id("w"), group=member, stream=MERGING, start=0, stop=63) / 2**32
        for member in range(3)
    ]
    wanted = reference(deltas.flatten(1), weights, torch.stack(drawn) < 0.4, 0.4, spec, elect)
    torch.testing.assert_close(merged, base + 0.7 * wanted.view(9, 7), rtol=1e-12, atol=1e-12)


def test_forms_of_dare_differ() -> None:
    members, base = around(normal(50, seed=4), *(normal(50, seed=seed) for seed in range(3)))
    weighted = members.reweight(torch.tensor([0.5, 0.3, 0.2]))
    made = [
        leafwise(weighted, dare(density=0.5, spec=spec, elect=True), base=base)["w"]  # type: ignore[arg-type]
        for spec in ("paper", "mergekit", "peft")
    ]
    assert not any(torch.allclose(one, other) for one, other in combinations(made, 2))


def test_what_stays_of_a_task_vector_is_it_in_the_mean() -> None:
    """E[m tau / p] = tau over 20,000 draws, within four standard errors of each element."""
    delta, draws, p = normal(11), 20_000, 0.3
    members = stack([{"w": delta.expand(draws, 11).reshape(-1)}])
    merged = leafwise(members, dare(density=p), base={"w": torch.zeros(draws * 11, dtype=torch.float64)})["w"]
    mean = merged.view(draws, 11).mean(0)
    error = delta.abs() * ((1 - p) / p / draws) ** 0.5
    assert bool(((mean - delta).abs() < 4 * error).all())
    assert not torch.equal(merged[:11], merged[11:22])


def test_masks_depend_on_nothing_but_their_address() -> None:
    deltas = [normal(300_000, seed=seed) for seed in range(2)]
    base = torch.zeros(300_000, dtype=torch.float64)
    whole, origin = stack([{"a": d[:5], "w": d} for d in deltas]), {"a": base[:5], "w": base}
    one = leafwise(whole, dare(density=0.2, key=1), base=origin)
    for options in ({"threads": 2}, {"chunk": 1}):
        other = leafwise(whole, dare(density=0.2, key=1), base=origin, **options)  # type: ignore[arg-type]
        assert all(torch.equal(one[name], other[name]) for name in one)
    alone = leafwise(stack([{"w": d[:1000]} for d in deltas]), dare(density=0.2, key=1), base={"w": base[:1000]})
    assert torch.equal(alone["w"], one["w"][:1000])
    assert not torch.equal(leafwise(whole, dare(density=0.2, key=2), base=origin)["w"], one["w"])


def test_a_density_of_one_drops_nothing_and_other_numbers_are_refused() -> None:
    members, base = around(BASE, ONE, TWO)
    torch.testing.assert_close(leafwise(members, dare(density=1.0), base=base)["w"], BASE + ONE + TWO)
    for density in (0.0, 1.1, -0.1):
        with pytest.raises(ValueError, match=r"density lies in \(0, 1\]"):
            dare(density=density)
    with pytest.raises(ValueError, match="spec is 'paper', 'mergekit' or 'peft'; got 'own'"):
        dare(spec="own")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="where signs are elected, scale is one number"):
        leafwise(members, dare(elect=True, scale=[1.0, 1.0]), base=base)


def test_a_member_that_loses_everything_stays_nothing() -> None:
    members, base = around(torch.zeros(1, dtype=torch.float64), ONE[:1])
    gone = next(
        key
        for key in range(50)
        if words(Key(key), tensor=tensor_id("w"), group=0, stream=MERGING, start=0, stop=1) > 2**30
    )
    assert leafwise(members, dare(density=0.1, spec="mergekit", key=gone), base=base)["w"].tolist() == [0.0]


SCRIPT = """
import torch
from pluria.core.ensemble import stack
from pluria.merge import dare, della, leafwise

draw = torch.Generator().manual_seed(0)
made = [{name: torch.randn(40, 30, generator=draw) for name in ("b", "a", "c")} for _ in range(3)]
for rule in (dare(key=3), della(key=3)):
    print(sum(float(v.double().sum()) for v in leafwise(stack(made[:2]), rule, base=made[2]).values()).hex())
"""


def test_masks_do_not_depend_on_the_hash_seed() -> None:
    told = [
        subprocess.run(
            [sys.executable, "-c", SCRIPT],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    ]
    assert told[0] == told[1]
    assert len(told[0].split()) == 2


ABSENT = {
    "task arithmetic": task_arithmetic(),
    "stock": model_stock(),
    **{f"ties {spec}": ties(spec=spec) for spec in ("paper", "mergekit", "peft", "sd-mecha")},  # type: ignore[arg-type]
    "sce": sce(select=0.4),
    "breadcrumbs": breadcrumbs(),
    "spread": corrected_mean(),
}


@pytest.mark.parametrize("rule", ABSENT.values(), ids=ABSENT)
def test_a_member_of_weight_zero_is_not_there(rule: Rule) -> None:
    shift = normal(30, seed=6)
    members, origin = around(normal(30, seed=5), *(normal(30, seed=seed) + shift for seed in range(3)))
    merged = leafwise(members.reweight(torch.tensor([1.0, 0.0, 1.0])), rule, base=origin)["w"]
    torch.testing.assert_close(merged, leafwise(members.take([0, 2]), rule, base=origin)["w"])
    assert not torch.allclose(merged, leafwise(members, rule, base=origin)["w"])
