"""Known answers of amortised averages, sparse and instant soups, and matched scales."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from pluria.core.ensemble import stack
from pluria.merge import (
    amortised,
    bang,
    contingency,
    instant_soup,
    leafwise,
    linear,
    logit_scales,
    sparse_soup,
    wise_ft,
)
from pluria.merge.amortised import _order
from pluria.numbers.key import Key


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_descent_at_the_rate_of_one_in_i_is_the_soup() -> None:
    members = stack([{"w": normal(50, seed=seed), "n": torch.tensor(2)} for seed in range(7)])
    for epochs in (1, 3):
        made = amortised(members, pivot={"w": torch.full((50,), 1e3), "n": torch.tensor(9)}, epochs=epochs)
        torch.testing.assert_close(made["w"], leafwise(members, linear())["w"], rtol=1e-12, atol=1e-12)
    assert made["n"] == 2
    weighted = members.reweight(torch.rand(7, generator=torch.Generator().manual_seed(0)))
    torch.testing.assert_close(amortised(weighted)["w"], leafwise(weighted, linear())["w"], rtol=1e-12, atol=1e-12)


def test_any_optimiser_is_drawn_to_the_members_in_turn() -> None:
    members = stack([{"w": torch.tensor([float(value)])} for value in (0, 4)])
    # From 2, halfway to one and halfway to the other: 2 -> 1 -> 2.5, or 2 -> 3 -> 1.5.
    made = amortised(members, lambda tensors: torch.optim.SGD(tensors, lr=0.5))
    assert made["w"].item() in (1.5, 2.5)
    orders = {amortised(members, lambda t: torch.optim.SGD(t, lr=0.5), key=key)["w"].item() for key in range(10)}
    assert orders == {1.5, 2.5}
    pivot = {"w": torch.tensor([2.0])}
    adam = amortised(members, lambda tensors: torch.optim.Adam(tensors, lr=0.01), pivot=pivot)
    assert 0 < abs(adam["w"].item() - 2.0) < 0.03  # near its pivot, whatever the members


def steps_of_adamw(pivot: float, members: list[float], order: list[int], rate: float, decay: float) -> list[float]:
    """AdamW written out, with its usual betas: where it is after each step towards a member."""
    at, first, second, path = pivot, 0.0, 0.0, []
    for step, member in enumerate((members[i] for i in order), 1):
        slope = at - member
        at *= 1 - rate * decay
        first, second = 0.9 * first + 0.1 * slope, 0.999 * second + 0.001 * slope**2
        at -= rate * (first / (1 - 0.9**step)) / ((second / (1 - 0.999**step)) ** 0.5 + 1e-8)
        path.append(at)
    return path


@pytest.mark.parametrize(("rate", "decay"), [(1e-3, 0.01), (1e-1, 0.01), (1e-1, 1.0)])
def test_adamw_from_a_pivot(rate: float, decay: float) -> None:
    rows, pivot = normal(6, 5, seed=3), normal(5, seed=4)
    members = stack([{"w": row} for row in rows])
    made = amortised(
        members, lambda tensors: torch.optim.AdamW(tensors, lr=rate, weight_decay=decay), pivot={"w": pivot}, epochs=3
    )["w"]
    order = [i for epoch in range(3) for i in _order(6, epoch, Key(0))]
    paths = [steps_of_adamw(float(pivot[j]), rows[:, j].tolist(), order, rate, decay) for j in range(5)]
    assert made.tolist() == pytest.approx([path[-1] for path in paths], rel=1e-9)
    away = [float((torch.tensor([path[step] for path in paths]) - pivot).norm()) for step in range(18)]
    print(f"AdamW, rate {rate:g}, decay {decay:g}: away from the pivot", *(f"{each:.4f}" for each in away[5::6]))
    # However far the members are, each step is about the rate at most.
    assert away[-1] <= 18 * rate * 5**0.5 * (1 + decay)
    assert away[-1] > 0


def test_a_member_without_weight_is_not_visited() -> None:
    members = stack([{"w": torch.tensor([1.0])}, {"w": torch.tensor([9.0])}]).reweight(torch.tensor([1.0, 0.0]))
    assert amortised(members)["w"].tolist() == [1.0]


def masked(seed: int, mask: Tensor) -> dict[str, Tensor]:
    return {"w": normal(40, 50, seed=seed) * mask, "bias": normal(40, seed=seed)}


def test_the_soup_of_members_with_one_mask_is_as_sparse_as_they_are() -> None:
    mask = normal(40, 50, seed=99) > 1.0
    members = stack([masked(seed, mask) for seed in range(4)])
    soup = leafwise(members, sparse_soup())
    assert torch.equal(soup["w"] != 0, mask)
    torch.testing.assert_close(soup["w"], torch.stack([member["w"] for member in members]).mean(0))


def test_members_that_were_pruned_apart_lose_their_sparsity_and_are_refused() -> None:
    members = stack([masked(seed, normal(40, 50, seed=seed + 50) > 1.0) for seed in range(4)])
    own = max(float((member["w"] != 0).double().mean()) for member in members)
    mean = float((leafwise(members, linear())["w"] != 0).double().mean())
    assert mean > 2.5 * own
    with pytest.raises(ValueError, match=rf"tensor 'w': the members keep {own:.1%} .* their mean {mean:.1%}"):
        leafwise(members, sparse_soup())
    assert leafwise(members, sparse_soup(excess=3.0))["w"].shape == (40, 50)


def test_one_weight_that_became_zero_by_itself_is_no_other_mask() -> None:
    mask = normal(40, 50, seed=99) > 0.0
    members = [masked(seed, mask) for seed in range(2)]
    members[0]["w"][tuple(mask.nonzero()[0].tolist())] = 0.0
    assert int((leafwise(stack(members), sparse_soup())["w"] != 0).sum()) == int(mask.sum())


def test_the_instant_soup_is_the_slow_form() -> None:
    weak = [{"a": normal(6, 5, seed=seed), "b": normal(4, 3, seed=seed + 10)} for seed in range(3)]
    base = {"a": normal(6, 5, seed=20), "b": normal(4, 3, seed=21)}
    made = leafwise(stack(weak), instant_soup(density=0.25), base=base)
    union = torch.zeros(42, dtype=torch.bool)
    for copy in weak:
        flat = torch.cat([copy["a"].flatten(), copy["b"].flatten()]).abs()
        mask = torch.zeros(42, dtype=torch.bool)
        mask[flat.topk(10).indices] = True
        union |= mask
        assert mask.sum() < union.sum() or copy is weak[0]
    kept = torch.cat([made["a"].flatten(), made["b"].flatten()])
    torch.testing.assert_close(kept, torch.cat([base["a"].flatten(), base["b"].flatten()]) * union)


def test_unions_of_masks_differ_less_from_one_another_than_masks() -> None:
    true = normal(2000, seed=7)
    base = {"w": torch.ones(2000, dtype=torch.float64)}

    def pruned(first: int, copies: int) -> Tensor:
        weak = stack([{"w": true + 0.5 * normal(2000, seed=seed)} for seed in range(first, first + copies)])
        return leafwise(weak, instant_soup(density=0.9), base=base)["w"]

    def disagreement(copies: int) -> float:
        each = torch.stack([pruned(100 * k, copies) for k in range(6)])
        return float(each.var(0).mean())

    assert disagreement(5) < 0.5 * disagreement(1)


def test_what_is_left_as_it_is_in_an_instant_soup() -> None:
    weak = stack([{"w": torch.tensor([[1.0, 9.0]]), "bias": torch.tensor([0.5])}])
    base = {"w": torch.tensor([[2.0, 3.0]]), "bias": torch.tensor([0.25])}
    made = leafwise(weak, lambda name: instant_soup(density=0.5) if name == "w" else wise_ft(alpha=0), base=base)
    assert made["w"].tolist() == [[0.0, 3.0]]
    assert made["bias"].tolist() == [0.25]


def test_an_overconfident_member_decides_until_scales_are_matched() -> None:
    """Linear models: each sees the label through noise of its own, so that their mean is better than either."""
    draw = torch.Generator().manual_seed(1)
    y = torch.randint(4, (2000,), generator=draw)
    label = torch.nn.functional.one_hot(y, 4).double()
    x = torch.cat([label + 0.8 * torch.randn(2000, 4, generator=draw) for _ in range(2)], dim=1)
    eye = torch.eye(4, dtype=torch.float64)
    one, other = torch.cat([eye, 0 * eye]), torch.cat([0 * eye, eye])

    def accuracy(weight: Tensor) -> float:
        return float(((x @ weight).argmax(-1) == y).double().mean())

    fair, loud = stack([{"w": one}, {"w": other}]), stack([{"w": one}, {"w": 5 * other}])
    scales = logit_scales(torch.stack([x @ member["w"] for member in loud]))
    assert float(scales[1] / scales[0]) == pytest.approx(5, rel=0.05)
    plain, matched = leafwise(loud, linear())["w"], leafwise(loud, bang(scales, ["w"]))["w"]
    assert accuracy(plain) < accuracy(leafwise(fair, linear())["w"]) - 0.05
    assert accuracy(matched) == pytest.approx(accuracy(leafwise(fair, linear())["w"]), abs=0.003)
    outputs = torch.stack([x @ member["w"] for member in loud])
    before, after = (contingency(outputs, x @ weight, y) for weight in (plain, matched))
    assert int(before.sum()) == int(after.sum()) == 2000
    assert int(after[0, 0, 1]) > 2 * int(before[0, 0, 1]) > 0  # wrong alone, right together


def test_only_the_head_is_scaled_and_networks_have_the_same_scale_afterwards() -> None:
    models = [torch.nn.Linear(3, 2).double() for _ in range(2)]
    members = stack([{k: v.detach() for k, v in model.state_dict().items()} for model in models])
    x = normal(30, 3)
    scales = logit_scales(torch.stack([model(x).detach() for model in models]))
    merged = leafwise(members, bang(scales, ["weight", "bias"]))
    mean = float(scales.mean())
    wanted = sum(model(x).detach() * mean / float(s) / 2 for model, s in zip(models, scales, strict=True))
    torch.testing.assert_close(x @ merged["weight"].T + merged["bias"], wanted)
    only = leafwise(members, bang(scales, ["weight"]))
    torch.testing.assert_close(only["bias"], leafwise(members, linear())["bias"])


def test_what_has_no_scale_is_refused() -> None:
    with pytest.raises(ValueError, match="scales are positive, one for each member"):
        bang(torch.tensor([1.0, 0.0]), ["w"])
    with pytest.raises(ValueError, match="takes 2 models; got 1"):
        leafwise(stack([{"w": normal(3)}]), bang(torch.tensor([1.0, 2.0]), ["w"]))
    with pytest.raises(ValueError, match=r"outputs \[2, N, C\] and merged \[N, C\]"):
        contingency(normal(3, 4, 2), normal(4, 2), torch.zeros(4))
