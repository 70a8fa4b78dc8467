"""Groups are found in networks of many kinds: permuting by them changes no function, and nothing is left out."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from align.networks import KINDS, answers, images, made, shuffled
from pluria.align import Groups, infer_groups, permuted
from pluria.core.params import params_of


@pytest.mark.parametrize("kind", KINDS)
def test_permuting_by_inferred_groups_changes_no_function(kind: str) -> None:
    model, x = made(kind), KINDS[kind][1]
    groups, params = infer_groups(model, x[:2]), params_of(model)
    assert len(groups.sizes) == KINDS[kind][2]
    moved = permuted(params, groups, shuffled(groups))
    assert not all(torch.equal(moved[name], params[name]) for name in params)
    before, after = (answers(model, p, x) for p in (params, moved))
    assert torch.allclose(before, after, rtol=1e-4, atol=1e-4 * float(before.abs().max()))


def test_a_group_too_many_changes_the_function() -> None:
    model, x = made("sorted"), images()
    table = {"first.weight": ("hidden", "64"), "first.bias": ("hidden",), "second.weight": ("5", "hidden")}
    groups, params = Groups(table, {"hidden": 7}), params_of(model)
    assert "first.weight" not in infer_groups(model, x).axes
    moved = permuted(params, groups, shuffled(groups))
    assert not torch.allclose(answers(model, params, x), answers(model, moved, x), rtol=1e-2)


def test_a_residual_network_by_hand() -> None:
    found = infer_groups(made("resnet"), images(1, channels=3, size=16))
    stream, inside = "conv1.out", "layer1.0.conv1.out"
    assert found.axes["layer1.0.conv2.weight"] == (stream, inside, "3", "3")
    assert found.axes["layer1.1.bn2.running_var"] == (stream,)
    # The shortcut to the second stage pads with zeros: eight new channels on each side of the old stream.
    ends = "layer2.0.conv2.out", "layer2.0.conv2.out2"
    assert found.axes["layer2.0.bn2.weight"] == (f"{ends[0]} + {stream} + {ends[1]}",)
    assert (found.sizes[stream], found.sizes[ends[0]]) == (16, 8)


def test_attention_by_hand() -> None:
    found = infer_groups(made("vit"), images(1))
    heads, values = "blocks.0.attention.out", "blocks.0.attention.out2"
    assert found.axes["blocks.0.attention.in_proj_weight"] == (f"3*{heads}*{values}", "positions.out")
    assert found.axes["blocks.0.attention.out_proj.weight"] == ("positions.out", f"{heads}*{values}")
    assert found.within[values] == heads
    assert found.axes["head.weight"] == ("10", "positions.out")


def test_channels_that_are_flattened_keep_their_places() -> None:
    assert infer_groups(made("vgg"), images(1)).axes["head.weight"] == ("10", "conv3.out*2*2")


def test_control_flow_that_looks_at_values_is_followed() -> None:
    class Looking(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.head = nn.Linear(4, 6), nn.Linear(6, 2)

        def forward(self, x: Tensor) -> Tensor:
            answer: Tensor = self.head(self.first(x).relu() if x.sum() > 0 else self.first(x).tanh())
            return answer

    assert infer_groups(Looking(), torch.ones(1, 4)).sizes == {"first.out": 6}


def test_tied_names_have_the_same_axes() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.words, self.mix, self.out = nn.Embedding(9, 6), nn.Linear(6, 6), nn.Linear(6, 9, bias=False)
            self.out.weight = self.words.weight

        def forward(self, x: Tensor) -> Tensor:
            hidden = self.words(x)
            answer: Tensor = self.out(hidden + self.mix(hidden.relu()))
            return answer

    found = infer_groups(Tied(), torch.zeros(1, 3, dtype=torch.int64))
    assert found.axes["words.weight"] == found.axes["out.weight"] == ("9", "words.out")
    assert found.axes["mix.weight"] == ("words.out", "words.out")


def test_the_model_is_left_as_it_was() -> None:
    model = made("vgg").train()
    before, state = params_of(model), torch.random.get_rng_state()
    infer_groups(model, images(2))
    assert model.training
    assert all(value.grad is None for value in model.parameters())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert torch.equal(state, torch.random.get_rng_state())
