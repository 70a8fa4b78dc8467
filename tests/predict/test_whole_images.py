"""Convolutions as int8 products give what the formula says, image by image, and only where they are exact."""

from collections.abc import Iterator

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pluria.core.ensemble import Ensemble
from pluria.core.rounded import Rounded
from pluria.predict import gather, logits, predict, whole_images
from pluria.predict.backends import Name, Storage
from pluria.predict.backends import backend as make
from pluria.predict.fold import graph_of
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


def by_formula(made: Ensemble, member: int, x: Tensor, name: str) -> Tensor:
    """In float64, with sums rounded to bfloat16."""
    family, params = made.families["0.weight"], made.params(member)
    assert isinstance(family, Rounded)
    scale = family.grid(member).scale.double().view(-1, 1, 1, 1)
    code = (params["0.weight"].double() / scale).round()
    signed = (x < 0).flatten(1).any(1).view(-1, 1, 1, 1)
    step = x.double().abs().amax((1, 2, 3), keepdim=True).clamp(min=1e-30) / torch.where(signed, 127.0, 255.0)
    options = {key: value for key, value in SHAPES[name].items() if key not in ("kernel_size", "bias")}
    sums = F.conv2d((x.double() / step).round(), code, **options)  # type: ignore[arg-type]
    bias = params.get("0.bias", torch.zeros(len(code))).double().view(1, -1, 1, 1)
    return sums.bfloat16().double() * step * scale.view(1, -1, 1, 1) + bias


@EXACT
@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("format", ["int4", "int8"])
def test_products_are_those_of_rounded_activations(name: str, format: str) -> None:
    model, x = convolution(name), images()
    made = low_precision(model, format=format, members=3)
    for member, outputs in enumerate(run(model, made, x)):
        # A quotient that lies between two whole numbers may be rounded to the other one in float32.
        wanted = by_formula(made, member, x, name)
        close = (outputs.double() - wanted).abs() <= 2**-8 * wanted.abs() + 1e-5
        assert float(close.double().mean()) > 0.999
        assert float((outputs.double() - wanted).norm() / wanted.norm()) < 2**-8


@EXACT
@pytest.mark.parametrize("channels", [3, 24, 1030])
def test_many_images_and_parts_that_do_not_come_out_even(channels: int) -> None:
    """More images than one thread takes, more than one part of each, and channels beyond a part."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(nn.Conv2d(4, channels, 1)).eval()
    made, x = low_precision(model, format="int4", members=2), draw(9, 4, 41, 37).bfloat16().float()
    for member, outputs in enumerate(run(model, made, x)):
        wanted = by_formula(made, member, x, "points")
        assert float((outputs.double() - wanted).norm() / wanted.norm()) < 2**-8


@EXACT
def test_batches_of_many_shapes_in_one_run() -> None:
    """Codes are laid out for a shape; others come after it, and with signs and without."""
    model, several = convolution(), [images(), images(1), draw(2, 4, 30, 5), draw(3, 4, 9, 7).relu(), images(4)]
    made = low_precision(model, format="int5", members=2)
    for member in made.members:
        runs = [block for block in predict(model, made, several, backend="int8") if block.members == (member,)]
        for block, x in zip(runs, several, strict=True):
            assert torch.equal(block.outputs, run(model, made, x)[member : member + 1])


@EXACT
def test_an_image_does_not_depend_on_those_beside_it() -> None:
    model, x = convolution(), images()
    made = low_precision(model, format="int8", members=2)
    together = run(model, made, x)
    for n in range(len(x)):
        assert torch.equal(run(model, made, x[n : n + 1])[:, 0], together[:, n])
    assert run(model, made, x[:0]).shape == (2, 0, *together.shape[2:])


@EXACT
@pytest.mark.parametrize("norm", [False, True])
def test_relu_goes_into_the_layer(norm: bool) -> None:
    model = nn.Sequential(*convolution(), *([nn.BatchNorm2d(8)] if norm else []), nn.ReLU()).eval()
    made, x = low_precision(model, format="int5", members=2), images()
    assert graph_of(model).endings == {"0": ("relu",)}
    before = low_precision(model[:-1], format="int5", members=2)
    assert torch.equal(run(model, made, x), run(model[:-1], before, x).relu())


@EXACT
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_an_image_with_no_number_gives_none(value: float) -> None:
    model = nn.Sequential(*convolution(), nn.ReLU())
    made, x = low_precision(model, format="int5", members=2), images()
    wanted = run(model, made, x)
    x[2, 0, 0, 0] = value
    found = run(model, made, x)
    assert bool(found[:, 2].isnan().all())
    assert torch.equal(found[:, [0, 1, 3, 4, 5]], wanted[:, [0, 1, 3, 4, 5]])


@EXACT
@pytest.mark.parametrize("backend", ["bfloat16", "int8"])
def test_one_image_without_an_axis_for_images(backend: Name) -> None:
    model, x = nn.Sequential(nn.Conv2d(4, 9, 3, padding=1)), images()[0]  # as many channels as rows
    made = low_precision(model, format="int5", members=1)
    run = make(backend, model, made, Storage(torch.device("cpu"), None))
    with torch.inference_mode():
        assert torch.equal(run([0], [x], logits)[0], run([0], [x[None]], logits)[0, 0])


class Wide(nn.Module):
    """Hands float32 to its layer, whatever comes in."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.layer(x.float())
        return out


@pytest.mark.parametrize(("layer", "shape"), [(nn.Linear(8, 8), (3, 8)), (nn.Conv2d(1, 2, 1), (3, 1, 5, 5))])
def test_activations_in_float32_are_refused(layer: nn.Module, shape: tuple[int, ...]) -> None:
    model = Wide(layer)
    with pytest.raises((TypeError, RuntimeError), match=r"bfloat16|BFloat16"):
        run(model, low_precision(model, format="int4", members=2), draw(*shape))


@pytest.fixture
def unlike(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Products that are half of what they should be."""
    right = whole_images.WholeImages._product
    whole_images.exact.cache_clear()
    monkeypatch.setattr(whole_images.WholeImages, "_product", lambda *given: right(*given) / 2)
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
