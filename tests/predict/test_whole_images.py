"""Convolutions as int8 products give what the formula says, image by image, and only where they are exact."""

from collections.abc import Iterator

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pluria.core.ensemble import Ensemble
from pluria.predict import gather, predict, whole_images
from pluria.sample import low_precision
from predict.networks import draw

EXACT = pytest.mark.skipif(
    not whole_images.exact(), reason="this processor, or this torch, has no exact products of bytes and int8"
)
SHAPES = {
    "plain": {"kernel_size": 3, "padding": 1},
    "strides": {"kernel_size": (3, 2), "stride": (2, 1), "padding": (0, 1)},
    "holes": {"kernel_size": 3, "dilation": 2, "padding": 2, "bias": False},
    "groups": {"kernel_size": 3, "groups": 2},
    "channel by channel": {"kernel_size": 3, "groups": 4, "padding": 1},
    "points": {"kernel_size": 1},
}


def images(count: int = 6) -> Tensor:
    """Images with and without negative numbers, one of zeros."""
    x = draw(count, 4, 9, 7)
    x[1::2] = x[1::2].relu()
    x[-1:] = 0
    return x.bfloat16().float()


def run(model: nn.Module, made: Ensemble, x: Tensor, backend: str = "int8") -> Tensor:
    return gather(predict(model, made, [x], backend=backend))[0]  # type: ignore[arg-type]


def convolution(name: str = "plain") -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Conv2d(4, 8, **SHAPES[name])).eval()  # type: ignore[arg-type]


def by_formula(params: dict[str, Tensor], x: Tensor, name: str) -> Tensor:
    """In float64, with sums rounded to bfloat16."""
    weight = params["0.weight"].double()
    scale = weight.abs().amax((1, 2, 3), keepdim=True) / 7
    code = (weight / scale).round()
    signed = (x < 0).flatten(1).any(1).view(-1, 1, 1, 1)
    step = x.double().abs().amax((1, 2, 3), keepdim=True).clamp(min=1e-30) / torch.where(signed, 127.0, 255.0)
    options = {key: value for key, value in SHAPES[name].items() if key not in ("kernel_size", "bias")}
    sums = F.conv2d((x.double() / step).round(), code, **options)  # type: ignore[arg-type]
    bias = params.get("0.bias", torch.zeros(8)).double().view(1, -1, 1, 1)
    return sums.bfloat16().double() * step * scale.view(1, -1, 1, 1) + bias


@EXACT
@pytest.mark.parametrize("name", SHAPES)
def test_products_are_those_of_rounded_activations(name: str) -> None:
    model, x = convolution(name), images()
    made = low_precision(model, format="int4", members=3)
    for member, outputs in enumerate(run(model, made, x)):
        params = made.params(member)
        reached = params["0.weight"].abs().amax((1, 2, 3)) == made.families["0.weight"].grid(member).scale.flatten() * 7
        wanted = by_formula(params, x, name)
        torch.testing.assert_close(outputs.double()[:, reached], wanted[:, reached], rtol=2**-7, atol=2e-3)
        assert int(reached.sum()) >= 4


@EXACT
def test_an_image_does_not_depend_on_those_beside_it() -> None:
    model, x = convolution(), images()
    made = low_precision(model, format="int8", members=2)
    together = run(model, made, x)
    for n in range(len(x)):
        assert torch.equal(run(model, made, x[n : n + 1])[:, 0], together[:, n])
    assert run(model, made, x[:0]).shape == (2, 0, *together.shape[2:])


@EXACT
def test_relu_goes_into_the_layer_and_a_number_that_is_none_stays_so() -> None:
    model = nn.Sequential(*convolution(), nn.ReLU())
    made, x = low_precision(model, format="int5", members=2), images()
    wanted = run(model[:1], low_precision(model[:1], format="int5", members=2), x).relu()
    assert torch.equal(run(model, made, x), wanted)
    x[2, 0, 0, 0] = float("nan")
    found = run(model, made, x)
    assert bool(found[:, 2].isnan().all())
    assert torch.equal(found[:, [0, 1, 3, 4, 5]], wanted[:, [0, 1, 3, 4, 5]])


@pytest.fixture
def unlike(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Products that are a little less than they should be."""
    right = whole_images._multiplied
    whole_images.exact.cache_clear()
    monkeypatch.setattr(whole_images, "_multiplied", lambda *given: right(*given) - 1)
    yield
    whole_images.exact.cache_clear()


@pytest.mark.usefixtures("unlike")
def test_products_that_are_not_exact_are_not_used() -> None:
    assert not whole_images.exact()
    model, x = convolution(), images()
    made = low_precision(model, format="int4", members=2)
    assert torch.equal(run(model, made, x), run(model, made, x, backend="bfloat16"))


def test_what_does_not_fit_runs_in_bfloat16() -> None:
    same = nn.Sequential(nn.Conv2d(4, 8, 3, padding="same"), nn.Conv2d(8, 8, 3, padding=1, padding_mode="reflect"))
    made, x = low_precision(same, format="int4", members=2), images()
    assert torch.equal(run(same, made, x), run(same, made, x, backend="bfloat16"))
    other = low_precision(convolution(), format="int8-asymmetric", members=2)
    assert torch.equal(run(convolution(), other, x), run(convolution(), other, x, backend="bfloat16"))
