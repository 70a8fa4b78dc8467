"""Second moments of layers' inputs against windows by torch, and what is refused."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor, nn

from core.laws import same_bits
from pluria.core.params import params_of
from pluria.sample import Moments, moments
from sample.networks import small

SEEN = torch.randn(6, 4, 9, 8, generator=torch.Generator().manual_seed(0))


def windows(layer: nn.Conv2d, x: Tensor, pad: Sequence[int]) -> Tensor:
    """Inputs of each output place, `[places, channels x kernel]`, by torch's own unfolding."""
    mode = "constant" if layer.padding_mode == "zeros" else layer.padding_mode
    x = nn.functional.pad(x, list(pad), mode=mode)
    columns = nn.functional.unfold(x, layer.kernel_size, dilation=layer.dilation, stride=layer.stride)
    return columns.transpose(1, 2).reshape(-1, columns.shape[1]).double()


def mean_square(rows: Tensor) -> Tensor:
    return rows.T @ rows / len(rows)


@pytest.mark.parametrize(
    ("options", "pad"),
    [
        ({}, (0, 0, 0, 0)),
        ({"padding": 1, "stride": 2}, (1, 1, 1, 1)),
        ({"padding": (0, 2), "dilation": (2, 1), "padding_mode": "reflect"}, (2, 2, 0, 0)),
        ({"padding": "same", "padding_mode": "circular"}, (1, 1, 0, 1)),
        ({"padding": "valid", "stride": (1, 3)}, (0, 0, 0, 0)),
        ({"padding": 1, "padding_mode": "replicate"}, (1, 1, 1, 1)),
    ],
)
def test_a_convolution_reads_its_padded_windows(options: dict[str, object], pad: tuple[int, ...]) -> None:
    layer = nn.Conv2d(4, 3, (2, 3), bias=False, **options)  # type: ignore[arg-type]
    found = moments(layer, [SEEN[:4], SEEN[4:]])
    rows, weight = windows(layer, SEEN, pad), layer.weight.detach().flatten(1).double()
    outputs = layer(SEEN).transpose(0, 1).flatten(1).double()
    assert torch.allclose(outputs.square().mean(1), (rows @ weight.T).square().mean(0), rtol=1e-5)
    assert torch.allclose(found.second["weight"], mean_square(rows).unsqueeze(0), rtol=1e-12, atol=1e-12)


def test_groups_are_blocks() -> None:
    layer = nn.Conv2d(4, 6, 3, groups=2)
    found = moments(layer, [SEEN]).second["weight"]
    for block, part in enumerate(SEEN.split(2, dim=1)):
        assert torch.allclose(found[block], mean_square(windows(layer, part, (0, 0, 0, 0))), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("layer", "shape"), [(nn.Conv1d(2, 3, 3), (5, 2, 7)), (nn.Conv3d(2, 3, 2), (3, 2, 4, 3, 5))])
def test_other_numbers_of_axes(layer: nn.Module, shape: tuple[int, ...]) -> None:
    x = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    found = moments(layer, [x])
    rows = found.layouts["weight"].to_rows(layer.weight.detach()).double()
    outputs = layer(x).transpose(0, 1).flatten(1).double() - layer.bias.detach().double().unsqueeze(1)
    wanted = outputs @ outputs.T / outputs.shape[1]
    assert torch.allclose(rows @ found.second["weight"][0] @ rows.T, wanted, rtol=1e-4, atol=1e-6)
    alone = moments(layer, [x[0]])  # without a batch axis
    assert torch.allclose(alone.second["weight"], moments(layer, [x[:1]]).second["weight"], rtol=1e-12)


def test_a_linear_layer_reads_every_place(monkeypatch: pytest.MonkeyPatch) -> None:
    x = torch.randn(3, 5, 4, generator=torch.Generator().manual_seed(2))
    found = moments(nn.Linear(4, 2), [x[:1], x[1:]]).second["weight"]
    assert found.dtype is torch.float64
    assert torch.allclose(found, mean_square(x.view(-1, 4).double()).unsqueeze(0), rtol=1e-12)
    assert torch.equal(found, found.mT)
    layer = nn.Conv2d(4, 6, 3, groups=2)
    whole = moments(layer, [SEEN]).second["weight"]
    monkeypatch.setattr(sys.modules[moments.__module__], "CHUNK", 37)
    assert torch.allclose(moments(nn.Linear(4, 2), [x]).second["weight"], found, rtol=1e-12)
    assert torch.allclose(moments(layer, [SEEN]).second["weight"], whole, rtol=1e-12, atol=1e-14)


def test_a_layer_of_hugging_face_keeps_its_inputs_first() -> None:
    conv1d = pytest.importorskip("transformers.pytorch_utils").Conv1D
    layer = conv1d(3, 5)
    x = torch.randn(7, 5, generator=torch.Generator().manual_seed(3))
    found = moments(layer, [{"x": x}])
    assert found.layouts["weight"].rows == 3
    assert torch.allclose(found.second["weight"][0], mean_square(x.double()), rtol=1e-12)


class Tied(nn.Module):
    """An embedding whose matrix is the output layer's as well, and a layer that runs twice."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(9, 4)
        self.twice = nn.Linear(4, 4)
        self.out = nn.Linear(4, 9, bias=False)
        self.out.weight = self.words.weight
        self.idle = nn.Linear(3, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.twice(self.twice(self.words(x))))


def test_tied_names_share_what_all_their_layers_see() -> None:
    model, x = Tied(), torch.arange(9)
    found = moments(model, [x])
    assert list(found.second) == ["words.weight", "twice.weight", "out.weight"]
    assert found.second["words.weight"] is found.second["out.weight"]
    with torch.no_grad():
        one = model.words(x)
        two = model.twice(one)
        three = model.twice(two)
    assert torch.allclose(found.second["twice.weight"][0], mean_square(torch.cat([one, two]).double()), rtol=1e-5)
    assert torch.allclose(found.second["out.weight"][0], mean_square(three.double()), rtol=1e-5)


def test_attention_is_left_out_and_its_feed_forward_layers_are_not() -> None:
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    found = moments(layer, [torch.randn(2, 5, 8, generator=torch.Generator().manual_seed(4))])
    assert list(found.second) == ["linear1.weight", "linear2.weight"]


def test_a_weight_that_is_computed_from_others_is_left_out() -> None:
    model = nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(4, 4)), nn.Linear(4, 2))
    assert list(moments(model, [torch.ones(3, 4)]).second) == ["1.weight"]


def test_the_model_is_untouched_and_run_in_evaluation_mode() -> None:
    model = small().train()
    before, state = params_of(model), torch.random.get_rng_state()
    x = torch.randn(5, 3, 6, 6, generator=torch.Generator().manual_seed(5))
    found = moments(model, [x])
    assert model.training
    assert not any(module._forward_pre_hooks for module in model.modules())
    assert all(same_bits(before[name], value) for name, value in params_of(model).items())
    assert torch.equal(state, torch.random.get_rng_state())
    again = moments(model.eval(), [x])
    assert all(torch.equal(found.second[name], again.second[name]) for name in found.second)
    own = moments(model, [(x, "label")], forward=lambda twin, batch: twin(batch[0]))
    assert torch.equal(own.second["5.weight"], found.second["5.weight"])


def test_what_is_refused() -> None:
    model = small()
    with pytest.raises(ValueError, match="no inputs"):
        moments(model, [])
    with pytest.raises(TypeError, match=r"Write \[inputs\]"):
        moments(model, torch.zeros(2, 3, 6, 6))
    with pytest.raises(ValueError, match="NaN or Inf among the inputs of layer '0'"):
        moments(model, [torch.full((2, 3, 6, 6), torch.nan)])
    broken = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    broken[0].bias.data.fill_(torch.inf)
    with pytest.raises(ValueError, match="inputs of layer '1'"):
        moments(broken, [torch.zeros(1, 2)])
    with pytest.raises(ValueError, match="inputs of the network, which is itself a layer"):
        moments(nn.Linear(2, 2), [torch.full((1, 2), torch.inf)])
    for empty in (SEEN[:0], SEEN[:0, :3]):
        with pytest.raises(ValueError, match="the batches hold no examples"):
            moments(nn.Conv2d(empty.shape[1], 2, 3), [empty])
    with pytest.raises(TypeError, match="give the inputs alone"):
        moments(nn.Linear(2, 2), [(torch.zeros(1, 2), torch.zeros(1))])


def test_an_empty_batch_among_others_counts_nothing() -> None:
    layer = nn.Conv2d(4, 2, 3)
    assert torch.equal(moments(layer, [SEEN, SEEN[:0]]).second["weight"], moments(layer, [SEEN]).second["weight"])


def test_positions_tell_where_inputs_are_too_few() -> None:
    model = nn.Sequential(nn.Conv2d(4, 2, 3, groups=2), nn.Flatten(), nn.Linear(84, 3))
    found = moments(model, [SEEN])
    assert found.positions == {"0.weight": 6 * 7 * 6, "2.weight": 6}
    assert found.scant() == {"2.weight": (6, 84)}
    assert Moments(found.second, found.layouts).scant() == {}, "not known"


def test_moments_fit_their_layouts() -> None:
    found = moments(nn.Linear(4, 2), [torch.ones(3, 4)])
    with pytest.raises(ValueError, match="'weight': moments of shape"):
        Moments({"weight": found.second["weight"][:, :2]}, found.layouts)
    with pytest.raises(ValueError, match="do not fit"):
        Moments({"weight": found.second["weight"].expand(3, 4, 4)}, found.layouts)
