"""Known answers of averages: order statistics, spheres, spreads, a base and its fine-tune, gossip."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

import pluria
from pluria.core.ensemble import Ensemble, single, stack
from pluria.merge import corrected_mean, leafwise, linear, median, mix, slerp, trimmed, wise_ft


def of(*rows: list[float], dtype: torch.dtype = torch.float64) -> Ensemble:
    return stack([{"w": torch.tensor(row, dtype=dtype)} for row in rows])


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_the_uniform_mean_is_that_of_swa_utils() -> None:
    models = [torch.nn.Linear(7, 5) for _ in range(4)]
    averaged = torch.optim.swa_utils.AveragedModel(models[0])
    for model in models:
        averaged.update_parameters(model)
    ours = leafwise(stack([pluria.params_of(model) for model in models]), linear())
    for name, value in averaged.module.state_dict().items():
        torch.testing.assert_close(ours[name], value, rtol=0, atol=1e-6)


def test_median_and_trimmed_mean() -> None:
    five = of([1.0, 5.0], [2.0, 4.0], [3.0, -9.0], [4.0, 2.0], [99.0, 1.0])
    assert leafwise(five, median())["w"].tolist() == [3.0, 2.0]
    assert leafwise(five, trimmed(trim=0.2))["w"].tolist() == pytest.approx([3.0, 7 / 3])
    assert leafwise(five, trimmed(trim=0.0))["w"].tolist() == pytest.approx([109 / 5, 3 / 5])
    with pytest.raises(ValueError, match=r"trim must lie in \[0, 1/2\), not 0.5"):
        trimmed(trim=0.5)


def test_slerp_of_hand() -> None:
    third = leafwise(of([2.0, 0.0], [0.0, 4.0]), slerp(t=1 / 3))["w"]  # a right angle: sin 60 and sin 30 degrees
    assert third.tolist() == pytest.approx([math.sqrt(3), 2.0])
    weighted = of([2.0, 0.0], [0.0, 4.0]).reweight(torch.tensor([2.0, 1.0]))
    assert torch.allclose(leafwise(weighted, slerp())["w"], third)


def test_slerp_of_parallel_opposite_and_vanishing_tensors_is_straight() -> None:
    assert leafwise(of([1.0, 1.0], [3.0, 3.0]), slerp(t=0.25))["w"].tolist() == [1.5, 1.5]
    assert leafwise(of([1.0, 0.0], [-1.0, 0.0]), slerp(t=0.25))["w"].tolist() == [0.5, 0.0]
    assert leafwise(of([0.0, 0.0], [0.0, 2.0]), slerp(t=0.25))["w"].tolist() == [0.0, 0.5]
    assert leafwise(of([1.5, 2.0], [1.5, 2.0]), slerp())["w"].tolist() == [1.5, 2.0]


def test_slerp_of_unit_vectors_stays_on_the_sphere() -> None:
    rows = torch.nn.functional.normalize(normal(2, 4, 50), dim=-1)
    members = stack([{"w": rows[0]}, {"w": rows[1]}])
    merged = leafwise(members, slerp(t=0.3, rows=True))["w"]
    torch.testing.assert_close(merged.norm(dim=1), torch.ones(4, dtype=torch.float64))
    whole = leafwise(members, slerp(t=0.3))["w"]
    torch.testing.assert_close(whole.norm(), torch.tensor(2.0, dtype=torch.float64))
    alone = leafwise(stack([{"w": rows[0, 2]}, {"w": rows[1, 2]}]), slerp(t=0.3, rows=True))["w"]
    torch.testing.assert_close(merged[2], alone)  # a vector is one row


def test_slerp_around_a_base_turns_task_vectors() -> None:
    base = {"w": torch.tensor([10.0, 10.0], dtype=torch.float64)}
    merged = leafwise(of([12.0, 10.0], [10.0, 14.0]), slerp(t=1 / 3, task_vectors=True), base=base)["w"]
    assert merged.tolist() == pytest.approx([10 + math.sqrt(3), 12.0])
    rows = leafwise(of([12.0, 10.0], [10.0, 14.0]), slerp(t=1 / 3, task_vectors=True, rows=True), base=base)["w"]
    torch.testing.assert_close(rows, merged)


def test_slerp_takes_two_and_a_share() -> None:
    with pytest.raises(ValueError, match="takes 2 models; got 3"):
        leafwise(of([1.0], [2.0], [3.0]), slerp())
    with pytest.raises(ValueError, match=r"t lies in \[0, 1\]; got 1.5"):
        slerp(t=1.5)


def test_the_spread_of_eight_independent_tensors_comes_back() -> None:
    members = stack([{"w": normal(400, 300, seed=seed)} for seed in range(8)])
    plain, corrected = leafwise(members, linear())["w"], leafwise(members, corrected_mean())["w"]
    assert float(plain.std()) == pytest.approx(1 / math.sqrt(8), rel=0.01)
    assert float(corrected.std()) == pytest.approx(1.0, rel=0.01)
    assert float(corrected.mean()) == pytest.approx(float(plain.mean()), abs=1e-12)


def test_whose_spread_is_followed() -> None:
    values, own = [normal(60, seed=seed) * (seed + 1) + seed for seed in range(3)], normal(60, seed=9) * 5
    weights = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)
    members, base = stack([{"w": value} for value in values]).reweight(weights), {"w": own}
    mean = sum(w * v for w, v in zip(weights, values, strict=True))
    others = sum(w * v.var(correction=0) for w, v in zip(weights, values, strict=True))
    wanted = {
        "others": others,
        "self": own.var(correction=0),
        "conservative": 0.25 * own.var(correction=0) + 0.75 * others,
    }
    for follow, variance in wanted.items():
        merged = leafwise(members, corrected_mean(follow=follow, share=0.25), base=base)["w"]  # type: ignore[arg-type]
        torch.testing.assert_close(
            merged, (mean - mean.mean()) * (variance / mean.var(correction=0)).sqrt() + mean.mean()
        )


def test_equal_members_are_left_as_they_are() -> None:
    value = normal(50)
    torch.testing.assert_close(leafwise(stack([{"w": value}] * 3), corrected_mean())["w"], value)
    assert leafwise(of([2.0, 2.0], [4.0, 4.0]), corrected_mean())["w"].tolist() == [3.0, 3.0]
    with pytest.raises(ValueError, match="follow is 'others', 'self' or 'conservative'; got 'me'"):
        corrected_mean(follow="me")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="starts from a base"):
        leafwise(of([1.0], [2.0]), corrected_mean(follow="self"))


def test_the_ends_of_wise_ft_are_the_models_bit_for_bit() -> None:
    zero_shot, tuned = ({"w": normal(1000, seed=seed).float() * 10.0**seed} for seed in (0, 1))
    curve = pluria.path([zero_shot, tuned], steps=11)
    for member, alpha in enumerate(torch.linspace(0, 1, 11).double().tolist()):
        merged = leafwise(single(tuned), wise_ft(alpha=alpha), base=zero_shot)["w"]
        torch.testing.assert_close(merged, curve.params(member)["w"], rtol=1e-6, atol=1e-6)
    for member, (alpha, end) in {0: (0.0, zero_shot), 10: (1.0, tuned)}.items():
        assert torch.equal(leafwise(single(tuned), wise_ft(alpha=alpha), base=zero_shot)["w"], end["w"])
        assert torch.equal(curve.params(member)["w"], end["w"])
    with pytest.raises(ValueError, match=r"alpha lies in \[0, 1\]; got 2"):
        wise_ft(alpha=2)


def test_rounds_of_gossip_on_a_ring_end_at_the_mean() -> None:
    members = stack([{"w": normal(6, seed=seed), "n": torch.tensor(seed)} for seed in range(5)])
    ring = torch.eye(5) / 2 + torch.eye(5).roll(1, 0) / 4 + torch.eye(5).roll(-1, 0) / 4
    once = mix(members, ring)
    wanted = members.params(4)["w"] / 2 + (members.params(3)["w"] + members.params(0)["w"]) / 4
    torch.testing.assert_close(once.params(4)["w"], wanted)
    assert [int(member["n"]) for member in once] == [0, 1, 2, 3, 4]
    rounds = once
    for _ in range(100):
        rounds = mix(rounds, ring)
    centre = torch.stack([member["w"] for member in members]).mean(0)
    for member in rounds:
        torch.testing.assert_close(member["w"], centre)


def test_tied_names_stay_tied_in_gossip() -> None:
    value = torch.ones(3)
    mixed = mix(stack([{"a": v, "b": v} for v in (value, value * 3)]), torch.full((2, 2), 0.5))
    assert mixed.families["a"] is mixed.families["b"]
    assert mixed.params(0)["a"].tolist() == [2.0] * 3


@pytest.mark.parametrize(
    ("matrix", "message"),
    [
        (torch.eye(3), r"a matrix \[2, 2\]; got \[3, 3\]"),
        (torch.ones(2, 2), r"sum to one; their sums are \[2.0, 2.0\]"),
        (torch.tensor([[1.5, -0.5], [0.0, 1.0]]), "rows of the matrix are not negative"),
    ],
)
def test_other_matrices_are_refused(matrix: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        mix(of([1.0], [2.0]), matrix)
