"""Sparse training keeps its density; exploring drops the smallest and grows the steepest."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pluria.train import Run, Snapshots, SparseTraining, erk_densities, every, train
from train.test_population import data, net


def run(model: nn.Module, sparse: SparseTraining, shares: list[float]) -> list[dict[str, Tensor]]:
    """A step for each share, exploring by it; the masks after each."""
    optimizer, seen = torch.optim.SGD(model.parameters(), 0.1), []
    for step, share in enumerate(shares):
        optimizer.zero_grad()
        torch.autograd.backward(F.cross_entropy(model(data(step)[0]), data(step)[1]))
        sparse.explore(share)
        optimizer.step()
        sparse.mask()
        seen.append({name: mask.clone() for name, mask in sparse.masks.items()})
    return seen


def test_the_number_of_weights_never_changes() -> None:
    model = net()
    sparse = SparseTraining(model, density=0.3, key=1)
    counts = {name: int(mask.sum()) for name, mask in sparse.masks.items()}
    for masks in run(model, sparse, [0.0, 0.3, 0.8, 1.0]):
        assert {name: int(mask.sum()) for name, mask in masks.items()} == counts
    for name, mask in sparse.masks.items():
        assert not bool(dict(model.named_parameters())[name].detach()[~mask].any())


def test_a_step_of_exploring_by_hand() -> None:
    model = nn.Sequential(nn.Linear(3, 2, bias=False))
    sparse = SparseTraining(model, density=1.0)
    sparse.masks["0.weight"] = torch.tensor([[True, True, False], [True, False, True]])
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([[1.0, -0.1, 0.0], [2.0, 0.0, 0.2]]))
    model[0].weight.grad = torch.tensor([[9.0, 9.0, -1.0], [9.0, 0.5, 9.0]])
    sparse.explore(0.25)
    assert sparse.masks["0.weight"].int().tolist() == [[1, 0, 1], [1, 0, 1]]
    assert torch.equal(model[0].weight.detach(), torch.tensor([[1.0, 0.0, 0.0], [2.0, 0.0, 0.2]]))


def test_more_exploring_leaves_less_in_common() -> None:
    def overlap(share: float) -> float:
        model = net()
        sparse = SparseTraining(model, density=0.2, key=1)
        before = {name: mask.clone() for name, mask in sparse.masks.items()}
        (after,) = run(model, sparse, [share])
        both, either = (
            sum(int(f(before[n], after[n]).sum()) for n in before) for f in (torch.logical_and, torch.logical_or)
        )
        return both / either

    assert overlap(0.8) < 0.5 * overlap(0.3)


def test_densities_are_erk_and_add_up() -> None:
    model = nn.Sequential(nn.Linear(100, 50), nn.Linear(50, 40), nn.Linear(40, 2))
    found = erk_densities(model, density=0.1)
    sizes = {"0.weight": 5000, "1.weight": 2000, "2.weight": 80}
    assert sum(found[name] * size for name, size in sizes.items()) == pytest.approx(0.1 * 7080)
    assert found["2.weight"] <= 1
    assert found["0.weight"] / found["1.weight"] == pytest.approx((150 / 5000) / (90 / 2000))
    assert set(erk_densities(model, density=1.0).values()) == {1.0}


def test_frozen_weights_stay_whole() -> None:
    model = net()
    model[4].weight.requires_grad_(False)
    before = model[4].weight.clone()
    sparse = SparseTraining(model, density=0.3)
    assert set(sparse.masks) == {"0.weight", "6.weight"}
    learned = {name: value.numel() for name, value in sparse.weights.items()}
    assert sum(int(m.sum()) for m in sparse.masks.values()) == pytest.approx(0.3 * sum(learned.values()), abs=2)
    run(model, sparse, [0.5, 0.5])
    assert torch.equal(model[4].weight, before)


def tickets(file: Path | None, before: Callable[[int], None] | None = None) -> tuple[nn.Module, SparseTraining, Run]:
    """A run of two epochs that explores after steps 2 and 4, which a checkpoint of every step may keep."""
    model = net()
    sparse, optimizer = SparseTraining(model, density=0.3), torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
    sparse.attach(optimizer, when=lambda step: step in (3, 5), share=0.8)
    done = train(
        model, lambda epoch: [data(3 * epoch + i) for i in range(3)], lambda m, b: F.cross_entropy(m(b[0]), b[1]),
        optimizer=optimizer, epochs=2, checkpoint=file, save_every=1, before=before, beside={"sparse": sparse},
        collectors={"points": Snapshots(every(2))},
    )  # fmt: skip
    return model, sparse, done


@pytest.mark.parametrize("stop", [3, 4, 6])
def test_an_interrupted_sparse_run_goes_on_bit_for_bit(stop: int, tmp_path: Path) -> None:
    def interrupted(step: int) -> None:
        if step == stop:
            raise KeyboardInterrupt

    whole, held, run = tickets(None)
    with pytest.raises(KeyboardInterrupt):
        tickets(tmp_path / "run.pt", interrupted)
    again, masks, resumed = tickets(tmp_path / "run.pt")
    assert resumed.losses == run.losses
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in whole.state_dict().items())
    assert all(torch.equal(mask, masks.masks[name]) for name, mask in held.masks.items())
    fresh = SparseTraining(net(), density=0.3).masks  # exploring has moved them, so that a fresh start would be seen
    assert not all(torch.equal(mask, fresh[name]) for name, mask in held.masks.items())
    tensors = run.states["points"].tensors
    assert all(torch.equal(value, resumed.states["points"].tensors[name]) for name, value in tensors.items())


def test_masks_of_another_network_and_a_checkpoint_without_them(tmp_path: Path) -> None:
    model, other = net(), nn.Sequential(nn.Linear(4, 3))
    sparse = SparseTraining(model)
    with pytest.raises(ValueError, match=r"masks of other layers: \['0.weight'\], here are \['0.weight', '4.weight'"):
        sparse.load_state_dict(SparseTraining(other).state_dict())
    how: Any = {"optimizer": torch.optim.SGD(other.parameters(), 0.1), "epochs": 1, "checkpoint": tmp_path / "run.pt"}
    batches = [torch.ones(2, 4)]
    train(other, lambda _: batches, lambda m, x: m(x).square().mean(), **how)
    with pytest.raises(ValueError, match=r"parts beside them \[\], here are \['sparse'\]"):
        train(
            other, lambda _: batches, lambda m, x: m(x).square().mean(), beside={"sparse": SparseTraining(other)}, **how
        )


def test_mistakes() -> None:
    sparse = SparseTraining(net())
    with pytest.raises(ValueError, match=r"0.weight has no gradient"):
        sparse.explore(0.1)
    with pytest.raises(ValueError, match=r"a share lies in 0..1; got 2"):
        sparse.explore(2)
    with pytest.raises(ValueError, match="a density lies in"):
        SparseTraining(net(), density=0)
    with pytest.raises(ValueError, match="sparse training needs weights"):
        SparseTraining(nn.ReLU())
