"""Adapters in weight space: exact sums, the best truncation, extraction, and ensembles of them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from torch import Tensor, nn

from pluria.core.adapter import LowRank
from pluria.core.ensemble import stack
from pluria.core.errors import CheckpointError
from pluria.core.params import params_of
from pluria.merge import adapted, add_adapters, extract_adapter, leafwise, linear, sum_adapters, ties
from pluria.merge.adding import adding
from pluria.predict import predict


def draws(*shape: int, seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def part(rank: int, seed: int, *, rows: int = 7, columns: int = 5) -> LowRank:
    return LowRank(draws(rows, rank, seed=seed), draws(rank, columns, seed=seed + 50), 1 + 0.5 * seed)


def test_products_are_added_and_not_factors() -> None:
    base = {"w": draws(7, 5, seed=9), "b": draws(7, seed=10)}
    adapters = [{"w": part(2, 0)}, {"w": part(3, 1)}]
    made = add_adapters(base, adapters, [0.7, -1.3])
    dense = base["w"].double() + 0.7 * adapters[0]["w"].product() - 1.3 * adapters[1]["w"].product()
    assert torch.equal(made["w"], dense.float())
    assert torch.equal(made["b"], base["b"])
    assert made["b"] is not base["b"]
    one, two = part(2, 0), part(2, 1)
    assert torch.equal(add_adapters(base, [{"w": one}, {"w": one}], [1.0, -1.0])["w"], base["w"])
    # Averages of the factors apart have cross terms, as large as the answer.
    wanted = one.product() - two.product()
    exact = add_adapters(base, [{"w": one}, {"w": two}], [1.0, -1.0])["w"].double() - base["w"]
    apart = (one.scale**0.5 * one.left - two.scale**0.5 * two.left).double() @ (
        one.scale**0.5 * one.right + two.scale**0.5 * two.right
    ).double()
    assert (exact - wanted).norm() < 1e-6 * wanted.norm()
    assert (apart - wanted).norm() > 0.5 * wanted.norm()


def test_tied_names_are_changed_together_and_once() -> None:
    base = {"w": draws(7, 5, seed=9)}
    base["again"] = base["w"]
    made = add_adapters(base, [{"again": part(2, 0)}])
    assert made["w"] is made["again"]
    assert torch.equal(made["w"], (base["w"].double() + part(2, 0).product()).float())
    ensemble = adapted(base, [{"again": part(2, 0)}])
    assert torch.equal(ensemble.params(0)["w"], ensemble.params(0)["again"])


def test_the_low_rank_sum_is_the_dense_sum() -> None:
    adapters, weights = [{"w": part(2, 0), "v": part(1, 4)}, {"w": part(1, 1)}, {"w": part(1, 2)}], [1.0, -0.5, 2.0]
    made = sum_adapters(adapters, weights)
    dense = sum(w * a["w"].product() for a, w in zip(adapters, weights, strict=True))
    assert made["w"].rank == 4
    assert float((made["w"].product() - dense).norm() / dense.norm()) < 1e-6
    torch.testing.assert_close(made["v"].product(), adapters[0]["v"].product(), rtol=1e-5, atol=1e-6)
    values = torch.linalg.svdvals(dense)
    short = sum_adapters(adapters, weights, rank=2)["w"]
    assert short.rank == 2
    assert float((short.product() - dense).norm()) == pytest.approx(float(values[2:].norm()), rel=1e-5)
    twice = sum_adapters([{"w": part(2, 0)}, {"w": part(2, 0)}])["w"]
    assert twice.rank == 2
    # More ranks than the matrix has.
    many = sum_adapters([{"w": part(4, seed)} for seed in range(3)])["w"]
    assert many.rank == 5


def test_public_adapters_are_summed_exactly(real_data: Path) -> None:
    with safe_open(real_data / "lora" / "lora_disney.safetensors", "pt") as file:
        names = [f"text_encoder:{k}" for k in range(48)]
        both = (
            [file.get_tensor(f"{n}:up").float() for n in names],
            [file.get_tensor(f"{n}:down").float() for n in names],
        )
    adapters = [{"w": LowRank(up, down)} for up, down in zip(*both, strict=True) if up.shape[0] == down.shape[1] == 768]
    assert len(adapters) > 10
    dense = sum(adapter["w"].product() for adapter in adapters)
    made = sum_adapters(adapters)["w"]
    assert made.rank == len(adapters)
    assert float((made.product() - dense).norm() / dense.norm()) < 1e-6  # type: ignore[union-attr]


def test_extraction_gives_back_what_was_added() -> None:
    base = {"w": draws(7, 5, seed=9), "k": draws(4, 3, 2, 2, seed=3), "b": draws(7, seed=10)}
    adapter = {"w": part(2, 0), "k": part(3, 1, rows=4, columns=12)}
    tuned = add_adapters(base, [adapter])
    found = extract_adapter(base, tuned, rank=3)
    again = add_adapters(base, [found])
    for name in base:
        torch.testing.assert_close(again[name], tuned[name], rtol=1e-6, atol=1e-5)
    step = tuned["w"].double() - base["w"].double()
    short = extract_adapter(base, tuned, rank=1)["w"]
    assert float((short.product() - step).norm()) == pytest.approx(
        float(torch.linalg.svdvals(step)[1:].norm()), rel=1e-5
    )
    assert extract_adapter(base, base, rank=1) == {}
    with pytest.raises(ValueError, match=r"'b' \[7\] differs, and an adapter holds only matrices"):
        extract_adapter(base, {**base, "b": base["b"] + 1}, rank=1)
    assert extract_adapter(base, {**base, "b": base["b"] + 1}, rank=1, names=["w"]) == {}


def test_an_ensemble_of_adapters_is_that_of_whole_networks() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(5, 7), nn.ReLU(), nn.Linear(7, 3))
    base = params_of(model)
    adapters = [{"0.weight": part(2, 0)}, {"0.weight": part(1, 1), "2.weight": part(1, 2, rows=3, columns=7)}, {}]
    weights = torch.tensor([0.5, 0.2, 0.3])
    thin, whole = adapted(base, adapters, weights), stack([add_adapters(base, [a]) for a in adapters]).reweight(weights)
    for one, other in zip(thin, whole, strict=True):
        for name in base:
            torch.testing.assert_close(one[name], other[name], rtol=1e-6, atol=1e-6)
    for rule, start in ((linear(), None), (ties(), base)):
        one, other = leafwise(thin, rule, base=start), leafwise(whole, rule, base=start)
        torch.testing.assert_close(one["0.weight"], other["0.weight"], rtol=1e-5, atol=1e-5)
    averaged = add_adapters(base, adapters, weights.tolist())
    torch.testing.assert_close(leafwise(thin, linear())["0.weight"], averaged["0.weight"], rtol=1e-6, atol=1e-6)
    x = draws(4, 5, seed=8)
    outputs = [torch.cat([b.outputs for b in predict(model, e, [(x, None)])], 1) for e in (thin, whole)]
    torch.testing.assert_close(*outputs)


def test_mistakes_say_what_to_do() -> None:
    base = {"w": draws(7, 5, seed=9)}
    with pytest.raises(ValueError, match="changes 'v', which the base does not have; it has w"):
        add_adapters(base, [{"v": part(1, 0)}])
    with pytest.raises(ValueError, match=r"'w' has shape \(7, 5\), and its adapter's product \(7, 4\)"):
        adapted(base, [{"w": part(1, 0, columns=4)}])
    with pytest.raises(ValueError, match="1 adapters need as many weights; got 2"):
        add_adapters(base, [{"w": part(1, 0)}], [1.0, 1.0])
    with pytest.raises(ValueError, match="of different shapes"):
        sum_adapters([{"w": part(1, 0)}, {"w": part(1, 0, columns=4)}])
    with pytest.raises(ValueError, match="the base has no v; it has w"):
        extract_adapter(base, base, rank=1, names=["v"])
    with pytest.raises(CheckpointError, match=r"the fine-tune does not fit the network: 1 missing \(w\)"):
        extract_adapter(base, {"v": base["w"]}, rank=1)
    with pytest.raises(ValueError, match="a rank is one or more; got 0"):
        sum_adapters([{"w": part(1, 0)}], rank=0)
    with pytest.raises(ValueError, match=r"\[out, r\] and \[r, in\] with one r; got \[7, 2\] and \[3, 5\]"):
        LowRank(torch.zeros(7, 2), torch.zeros(3, 5))


def test_adapters_are_added_to_a_base_in_pieces() -> None:
    draw = torch.Generator().manual_seed(0)
    base = {"w": torch.randn(7, 5, generator=draw), "conv": torch.randn(4, 3, 2, 2, generator=draw), "b": torch.ones(7)}
    one = {"w": LowRank(torch.randn(7, 2, generator=draw), torch.randn(2, 5, generator=draw), 0.5)}
    other = {
        "w": LowRank(torch.randn(7, 1, generator=draw), torch.randn(1, 5, generator=draw)),
        "conv": LowRank(torch.randn(4, 1, generator=draw), torch.randn(1, 12, generator=draw)),
    }
    wanted = add_adapters(base, [one, other], [0.3, -2.0])
    made = leafwise(stack([base]), adding([one, other], [0.3, -2.0]))
    assert all(torch.equal(made[name], value) for name, value in wanted.items())
    point = {"conv": LowRank(torch.ones(4, 1), torch.ones(1, 3))}  # of a kernel, the same at each place
    assert torch.equal(leafwise(stack([base]), adding([point]))["conv"], add_adapters(base, [point])["conv"])
    for wrong, said in (
        ({"v": one["w"]}, "have no v"),
        ({"b": one["w"]}, "'b' has shape"),
        ({"w": point["conv"]}, "(4, 3)"),
    ):
        with pytest.raises(ValueError, match=said.replace("(", r"\(").replace(")", r"\)")):
            leafwise(stack([base]), adding([wrong]))
    with pytest.raises(ValueError, match="give one adapter or more"):
        adding([])
