"""Subnetworks are apart, pairs are opposite, masked channels are channels that are zero."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from pluria.core.masked import Masked
from pluria.core.params import params_of
from pluria.predict import gather, predict
from pluria.train import (
    claimed_masks,
    disjoint_masks,
    masksembles,
    packed_ensemble,
    paired_masks,
    prune_and_tune,
    subnetworks,
)
from train.test_population import data, net, outputs, trained


def test_disjoint_masks_share_out_every_element() -> None:
    masks = disjoint_masks(net(), members=4, key=1)
    assert set(masks) == {"0.weight", "4.weight"}
    for mask in masks.values():
        assert torch.equal(mask.sum(0), torch.ones(mask.shape[1:], dtype=torch.int64))
        counts = mask.flatten(1).sum(1)
        assert int(counts.max() - counts.min()) <= 1
    assert not torch.equal(masks["4.weight"], disjoint_masks(net(), members=4, key=2)["4.weight"])


def test_members_gradients_reach_their_own_elements_alone() -> None:
    population = subnetworks(net(), members=3)
    torch.autograd.backward(F.cross_entropy(population(data()[0], member=1), data()[1]))
    part = population.parts["4/weight"]
    assert not bool(part.base.grad[~part.masks[1]].any())
    assert bool(part.base.grad[part.masks[1]].any())


def test_training_one_member_leaves_the_others_bit_for_bit() -> None:
    model = net()
    population = subnetworks(model, members=3).train()
    before = outputs(model, population.ensemble())
    optimizer = torch.optim.SGD(population.parameters(), 0.1, momentum=0.9)
    for _ in range(3):
        optimizer.zero_grad()
        torch.autograd.backward(F.cross_entropy(population(data()[0], member=1), data()[1]))
        optimizer.step()
    after = outputs(model, population.ensemble())
    assert torch.equal(before[0], after[0])
    assert torch.equal(before[2], after[2])
    assert not torch.equal(before[1], after[1])


def test_one_networks_hidden_weights_hold_all_members() -> None:
    ensemble = trained(subnetworks(net(), members=4)).ensemble()
    family = ensemble.families["4.weight"]
    assert isinstance(family, Masked)
    nonzero = sum(int((ensemble.params(member)["4.weight"] != 0).sum()) for member in ensemble.members)
    assert nonzero <= family.shape.numel()
    assert family.bits(ensemble.members).file == family.shape.numel() * (32 + 4)


def test_masks_that_overlap_are_refused() -> None:
    masks = {"4.weight": torch.ones(2, 8, 36, dtype=torch.bool)}
    with pytest.raises(ValueError, match=r"of 4.weight there are 2, or two overlap"):
        subnetworks(net(), members=2, masks=masks)
    with pytest.raises(ValueError, match="needs two layers or more"):
        subnetworks(nn.Linear(2, 2), members=2)
    with pytest.raises(ValueError, match="4 elements, too few for 5 members"):
        disjoint_masks(nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2)), members=5)


def test_claimed_masks_take_the_largest_of_what_is_free() -> None:
    model = nn.Sequential(nn.Linear(2, 3, bias=False), nn.Linear(3, 1))
    seen: list[Tensor] = []

    def fit(model: nn.Module, free: dict[str, Tensor], member: int) -> dict[str, Tensor]:
        seen.append(free["0.weight"])
        return {"0.weight": torch.tensor([[1.0, -6.0], [3.0, 4.0], [-5.0, 2.0]])}

    masks = claimed_masks(model, fit, members=2)["0.weight"]  # type: ignore[arg-type]
    assert masks.int().tolist() == [[[0, 1], [0, 1], [1, 0]], [[1, 0], [1, 0], [0, 1]]]
    assert torch.equal(seen[1], ~masks[0])
    subnetworks(model, members=2, masks={"0.weight": masks})


@pytest.mark.parametrize("density", [0.5, 0.3])
def test_pairs_are_exactly_opposite(density: float) -> None:
    masks = paired_masks(net(), members=5, density=density, key=2)
    for mask in masks.values():
        assert len(mask) == 5
        assert torch.equal(mask[0], ~mask[1])
        assert torch.equal(mask[2], ~mask[3])
        assert not torch.equal(mask[0], mask[2])
        assert int(mask[4].sum()) == round(density * mask[4].numel())
    with pytest.raises(ValueError, match="between 0 and 1; got 1"):
        paired_masks(net(), members=2, density=1)


def test_pruned_children_begin_as_their_parent_and_stay_sparse() -> None:
    model = net()
    population = prune_and_tune(model, members=4, key=3)
    start = population.ensemble().params(2)
    mask = start["4.weight"] != 0
    assert torch.equal(start["4.weight"][mask], model[4].weight.detach()[mask])
    assert torch.equal(start["6.weight"], model[6].weight)
    ensemble = trained(population).ensemble()
    tuned = ensemble.params(2)
    assert not bool(tuned["4.weight"][~mask].any())
    assert not torch.equal(tuned["4.weight"], start["4.weight"])
    found, _ = gather(predict(model, ensemble, [data()[0]]))
    with torch.no_grad():
        assert torch.allclose(found, population(data()[0]), atol=1e-5)


def test_pruning_takes_masks_of_ones_own() -> None:
    pairs = paired_masks(net(), members=6, key=3)
    population = prune_and_tune(net(), members=3, masks={name: rows[::2] for name, rows in pairs.items()})
    own = population.ensemble().params(2)["4.weight"]
    assert torch.equal(own != 0, pairs["4.weight"][4])
    with pytest.raises(ValueError, match=r"3 members need as many masks; of 0.weight there are 6"):
        prune_and_tune(net(), members=3, masks=pairs)


def test_masksembles_zero_whole_channels() -> None:
    model = net()
    population = masksembles(model, members=4, scale=2.0, key=1).eval()
    params = params_of(model)
    for member in range(4):
        twin, kept = net(), population.ensemble().params(member)["6.weight"]
        read = (kept != 0).any(0)
        assert bool(((kept != 0) == read).all())
        assert 0 < int(read.sum()) < 8
        mask = (population.ensemble().params(member)["4.weight"] != 0).any(0).float()
        twin[4].register_forward_pre_hook(lambda _, args, mask=mask: (args[0] * mask,))
        twin[6].register_forward_pre_hook(lambda _, args, read=read: (args[0] * read,))
        with torch.no_grad():
            assert torch.allclose(population(data()[0], member=member), twin(data()[0]), atol=1e-6)
    assert all(torch.equal(params[name], value) for name, value in model.state_dict().items())


def test_masksembles_at_scale_one_is_the_network_and_widths_without_masks_are_named() -> None:
    model = net()
    with torch.no_grad():
        assert torch.equal(masksembles(model, members=3, scale=1.0).eval()(data()[0])[2], model(data()[0]))
    with pytest.raises(ValueError, match=r"no masks of scale 1000.0 were found for the 2 channels that 1.weight reads"):
        masksembles(nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2)), members=4, scale=1000.0)
    with pytest.raises(ValueError, match="the scale is 1"):
        masksembles(model, members=3, scale=0.5)


def test_layers_without_plain_input_channels_are_refused_by_masksembles() -> None:
    with pytest.raises(ValueError, match=r"two layers or more, since the first reads all; there is weight"):
        masksembles(nn.Linear(4, 3), members=2)
    for layer in (nn.Conv2d(4, 4, 3, groups=4), nn.ConvTranspose2d(4, 6, 3), Conv1D(4, 4)):
        with pytest.raises(ValueError, match=rf"1\.weight is of a {type(layer).__name__}, grouped or transposed"):
            masksembles(nn.Sequential(nn.Conv2d(3, 4, 1), layer), members=2)


@pytest.mark.parametrize("make", [subnetworks, prune_and_tune, masksembles, disjoint_masks, packed_ensemble])
def test_no_members_are_refused(make: Any) -> None:
    with pytest.raises(ValueError, match="one member or more; got 0"):
        make(net(), members=0)
    with pytest.raises(ValueError, match="one member or more; got 0"):
        claimed_masks(net(), lambda model, free, member: params_of(model), members=0)


def test_populations_of_masks_save_their_masks() -> None:
    one, other = (masksembles(net(), members=3, key=key) for key in (1, 2))
    other.load_state_dict(one.state_dict())
    with torch.no_grad():
        assert torch.equal(one.eval()(data()[0]), other.eval()(data()[0]))
