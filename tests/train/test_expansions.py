"""What expansions take from their network: frozen tensors as they are, its own last layer, its device."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pluria.train import (
    OwnPart,
    batch_ensemble,
    disjoint_masks,
    late_phase,
    lora,
    masksembles,
    prune_and_tune,
    subnetworks,
)
from train.test_population import KINDS, net, trained


@pytest.mark.parametrize(
    "kind", ["batch ensemble", "drawn", "late norm", "late last", "late rank1", "late hyper", "subnetworks", "pruned"]
)
def test_what_is_frozen_stays_as_it_is(kind: str) -> None:
    made = KINDS | {
        "drawn": lambda m: batch_ensemble(m, members=3),
        "subnetworks": lambda m: subnetworks(m, members=3),
        "pruned": lambda m: prune_and_tune(m, members=3),
    }
    model = net()
    model[1].requires_grad_(False)
    model[4].weight.requires_grad_(False)
    before = made[kind](model)
    after = trained(made[kind](model))
    frozen = [name for name, value in before.named_parameters() if not value.requires_grad]
    assert any(name.startswith("parts.4/weight") for name in frozen)
    learned = dict(after.named_parameters())
    assert all(torch.equal(dict(before.named_parameters())[name], learned[name]) for name in frozen)
    first, last = before.ensemble(), after.ensemble()
    assert all(torch.equal(first.params(1)[name], last.params(1)[name]) for name in ("1.weight", "1.bias", "4.weight"))
    assert torch.equal(last.params(1)["1.weight"], model[1].weight)
    assert kind in ("subnetworks", "pruned") or torch.equal(last.params(1)["4.weight"], model[4].weight)


def test_a_network_that_is_all_frozen_has_nothing_to_replicate() -> None:
    frozen = net().requires_grad_(False)
    with pytest.raises(ValueError, match=r"BatchEnsemble needs weights that learn; .* frozen: 0\.weight"):
        batch_ensemble(frozen, members=2)
    with pytest.raises(ValueError, match=r"nothing to replicate learns; these are frozen: .*6\.weight"):
        late_phase(frozen, members=2)
    with pytest.raises(ValueError, match="a late phase needs weights that learn"):
        late_phase(frozen, members=2, kind="hyper")
    assert len(lora(frozen, members=2).common()) == 0  # a frozen network is what it is for


class Speaker(nn.Module):
    """A language model by its own word for it: an embedding, a layer, and an output layer that is not the last."""

    def __init__(self) -> None:
        super().__init__()
        self.lm_head = nn.Linear(6, 9, bias=False)
        self.embed, self.norm, self.inner = nn.Embedding(9, 6), nn.LayerNorm(6), nn.Linear(6, 6)

    def get_output_embeddings(self) -> nn.Module:
        return self.lm_head

    def forward(self, x: Tensor) -> Tensor:
        return self.lm_head(self.norm(self.inner(self.embed(x))))  # type: ignore[no-any-return]


def test_the_last_layer_of_a_language_model_is_its_output_layer() -> None:
    def owned(kind: Any) -> set[str]:
        population = late_phase(Speaker(), members=2, kind=kind)
        return {name for name, part in population.parts.items() if isinstance(part, OwnPart)}

    assert owned("last") == {"lm_head/weight"}
    assert owned("norm") == {"lm_head/weight", "norm/weight", "norm/bias"}
    assert set(disjoint_masks(Speaker(), members=2)) == {"inner.weight"}


PLACED = {
    "batch ensemble": batch_ensemble,
    "lora": lora,
    "late norm": late_phase,
    "late rank1": partial(late_phase, kind="rank1", sigma=0.1),
    "late hyper": partial(late_phase, kind="hyper", sigma=0.1),
    "pruned": prune_and_tune,
    "masksembles": partial(masksembles, scale=1.5),
}


@pytest.mark.parametrize("kind", PLACED)
def test_expansions_are_on_the_device_of_the_network(kind: str) -> None:
    population = PLACED[kind](net().to("meta"), members=2)
    places = {name: value.device.type for name, value in population.state_dict().items()}
    assert set(places.values()) == {"meta"}, places
    assert {mask.device.type for mask in disjoint_masks(net().to("meta"), members=2).values()} == {"meta"}
