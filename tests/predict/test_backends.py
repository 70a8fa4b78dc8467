"""The fast ways to run members give what the plain loop gives, and keep every bit of the members' codes."""

from collections import Counter
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import pluria
from pluria.core.ensemble import Ensemble, join, single
from pluria.core.params import params_of
from pluria.predict import backends, gather, predict
from pluria.predict.backends import Storage, backend, noted
from pluria.predict.choose import distance
from pluria.predict.fold import Graph, graph_of
from pluria.predict.scaled import Scaled, has_codes, scaled
from pluria.sample import dropout, low_precision
from pluria.store.export import packed
from pluria.zoo import network
from predict.networks import batches, convolutional, draw, ensemble, images, seeded

WAYS = pytest.mark.parametrize(("way", "most"), [("channels_last", 1e-5), ("bfloat16", 0.02)])


class Encoder(nn.Module):
    """Tokens to logits through torch's own encoder layer, whose parts are not called; the head is tied."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(11, 8)
        self.layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
        self.inner, self.head = nn.Linear(8, 8), nn.Linear(8, 11, bias=False)
        self.head.weight = self.words.weight

    def forward(self, tokens: Tensor) -> Tensor:
        return self.head(self.inner(self.layer(self.words(tokens))).mean(1))


TOKENS = [torch.arange(12).view(3, 4) % 11]
SIGNALS = nn.Sequential(nn.Conv1d(2, 4, 3), nn.BatchNorm1d(4), nn.Flatten(), nn.Linear(8, 3))
GROUPED = nn.Sequential(nn.Conv2d(4, 8, 3, groups=2), nn.BatchNorm2d(8, affine=False))
NETWORKS: dict[str, tuple[Callable[[], nn.Module], list[Tensor]]] = {
    "convolutions": (convolutional, [images()]),
    "resnet": (lambda: network("cifar_resnet", depth=8, classes=4), [draw(3, 3, 16, 16)]),
    "vit": (lambda: network("small_vit", size=8, channels=3, classes=4), [draw(3, 3, 8, 8)]),
    "encoder": (Encoder, TOKENS),
    "signals": (lambda: SIGNALS, [draw(5, 2, 4)]),
    "grouped": (lambda: GROUPED, [draw(2, 4, 5, 5)]),
}


def run(model: nn.Module, made: Ensemble, data: object, **options: object) -> Tensor:
    return gather(predict(model, made, data, **options))[0]  # type: ignore[arg-type]


@WAYS
@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("format", ["int4", "int8-asymmetric", "fp8-e4m3", "nf4"])
def test_agrees_with_the_loop(name: str, format: str, way: str, most: float) -> None:
    make, data = NETWORKS[name]
    model = seeded(make)
    made = low_precision(model, format=format, members=3)
    assert distance(run(model, made, data, backend=way), run(model, made, data)) < most


@pytest.mark.parametrize(("way", "most"), [("channels_last", 1e-5), ("bfloat16", 0.02), ("int8", 0.05)])
def test_what_else_a_member_may_have_of_its_own(way: str, most: float) -> None:
    """Refreshed statistics, biases, packed codes, a full-precision member among the others, dropout."""
    model = convolutional()
    drawn = low_precision(model, format="int5", members=3)
    refreshed = pluria.refresh(model, drawn, [images()])
    biased = pluria.isotropic(drawn, std=0.1, key=1)
    masked, masks = dropout(nn.Sequential(*convolutional(), nn.Dropout(0.5)), members=3)
    for net, made in [
        (model, refreshed),
        (model, packed(refreshed)),
        (model, packed(drawn, form="planes")),
        (model, join(single(params_of(model)), refreshed)),
        (model, join(refreshed, packed(drawn))),
        (model, biased),
        (masked, masks),
    ]:
        wanted = run(net, made, batches())
        assert distance(run(net, made, batches(), backend=way), wanted) < most
        assert float((wanted[0] - wanted[1]).norm()) > 0.05


@WAYS
def test_views_and_the_class_axis(way: str, most: float) -> None:
    model = seeded(lambda: nn.Sequential(nn.Conv2d(3, 7, 1)))
    made = low_precision(model, members=3).take([2, 0, 1])
    options = {"class_axis": 1, "views": (lambda x: x, lambda x: 2 * x.flip(-1))}
    wanted = run(model, made, batches(), **options)
    assert wanted.shape == (3, 10, 6, 6, 7)
    assert distance(run(model, made, batches(), backend=way, **options), wanted) < most


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("format", ["int8", "int8-asymmetric", "fp8-e4m3"])
def test_codes_keep_every_bit(dtype: torch.dtype, format: str) -> None:
    model = convolutional()
    made = low_precision(model, format=format, members=3)
    twin = convolutional().requires_grad_(False).to(dtype).to(memory_format=torch.channels_last)
    writers, served = scaled(twin, made, Graph({"0": "1"}))
    for member in (1, 2):
        for write in writers:
            write(member)
        wanted = made.params(member)
        for name, layer in twin.named_modules():
            if isinstance(layer, Scaled):
                family = made.families[f"{name}.weight"]
                codes = layer.layer.weight.float()
                scale = family.grid(member).scale.view(-1, *[1] * (codes.ndim - 1))
                assert torch.equal(codes * scale, wanted[f"{name}.weight"])
                assert "int" not in format or torch.equal(codes, codes.round())
    assert {"0.weight", "0.bias", "1.running_var", "3.weight", "5.bias"} <= served


def test_formats_that_sixteen_bits_cannot_hold_stay_as_they_are() -> None:
    weight = {
        form: low_precision(convolutional(), format=form).families["0.weight"] for form in ("int8", "nf4", "bf16")
    }
    assert {form: has_codes(family) for form, family in weight.items()} == {"int8": True, "nf4": False, "bf16": False}
    grouped = low_precision(convolutional(), format="int4", granularity=4, where=["5.*"]).families["5.weight"]
    assert not has_codes(grouped)


class Twice(nn.Module):
    """A convolution whose output is read twice, one called twice, one whose norm is; ReLUs of what is not theirs."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c, self.good = (nn.Conv2d(3, 3, 1) for _ in range(4))
        self.na, self.nb, self.nc, self.fine = (nn.BatchNorm2d(3) for _ in range(4))
        self.relu, self.last = nn.ReLU(), nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        y = self.a(x)
        y = self.na(y) + y
        y = self.nb(self.b(y)) + self.b(x)
        y = self.nc(self.nc(self.c(y)))
        z = self.fine(self.good(y))
        return (self.relu(z) + z + self.last(x.relu())).mean((2, 3))


class Onto(nn.Module):
    """Adds onto a tensor, in place, and reads it again where `again`."""

    def __init__(self, *, again: bool) -> None:
        super().__init__()
        self.layer, self.relu, self.again = nn.Linear(4, 4), nn.ReLU(), again

    def forward(self, x: Tensor) -> Tensor:
        y = z = self.layer(x)
        y += x
        out: Tensor = self.relu(y)
        return out + z if self.again else out


@pytest.mark.parametrize("again", [False, True])
def test_what_is_added_to_in_place_and_read_again_is_not_changed(again: bool) -> None:
    model = seeded(lambda: Onto(again=again)).eval()
    assert graph_of(model) == Graph({}, () if again else ("relu",))
    made, x = low_precision(model, format="int4", members=2), draw(5, 4)
    torch.testing.assert_close(run(model, made, [x], backend="channels_last"), run(model, made, [x]))


class Asking(nn.Sequential):
    """Looks at values, so that it has no graph."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x if float(x.sum()) > 0 else -x)


def test_only_what_stands_right_behind_one_layer_is_folded() -> None:
    assert graph_of(convolutional().eval()) == Graph({"0": "1"}, ("2",), endings={"0": ("relu",)})
    resnet = graph_of(network("cifar_resnet", depth=20, classes=10))
    assert (len(resnet.norms), len(resnet.relus)) == (19, 19)
    assert Counter(resnet.endings.values()) == {("relu",): 10, ("sum", "relu"): 9}
    assert graph_of(nn.Sequential(nn.Conv1d(1, 1, 1), nn.ReLU(), nn.ReLU())) == Graph(
        {}, ("1",), endings={"0": ("relu",)}
    )
    assert graph_of(Twice().eval()) == Graph({"good": "fine"})
    assert graph_of(Asking(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3))) == Graph({})
    assert graph_of(nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3))) == Graph({})
    heard = convolutional()
    heard[1].register_forward_hook(lambda module, inputs, output: None)
    assert graph_of(heard) == Graph({})


@pytest.mark.parametrize(
    "make", [lambda: Twice().eval(), lambda: Asking(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3), nn.Flatten())]
)
def test_networks_without_a_graph_or_with_shared_parts(make: Callable[[], nn.Module]) -> None:
    model = seeded(make)
    made = low_precision(model, members=2)
    assert distance(run(model, made, [images()], backend="channels_last"), run(model, made, [images()])) < 1e-5


@pytest.mark.parametrize("size", [1, 3, 4, 99])
def test_pieces_of_a_batch_change_nothing(size: int) -> None:
    made = ensemble()
    way = backend("loop", convolutional(), made, Storage(torch.device("cpu"), None), batch=size)
    torch.testing.assert_close(way([1], [images()], lambda y: y)[0], run(convolutional(), made, [images()])[1])


def test_shared_parameters_are_written_once_and_buffers_each_time() -> None:
    class Moving(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(3, 2)
            self.register_buffer("seen", torch.zeros(()))

        def forward(self, x: Tensor) -> Tensor:
            self.seen += 1
            return self.layer(x) + self.seen

    model = Moving()
    made = low_precision(model, members=3)
    x = draw(2, 3)
    wanted = torch.stack([x @ p["layer.weight"].T + p["layer.bias"] + 1 for p in made])
    torch.testing.assert_close(run(model, made, [x]), wanted)


@pytest.mark.parametrize("shape", [(5, 7), (2, 3, 7), (600, 7), (0, 7)])
@pytest.mark.parametrize("format", ["int8", "int4"])
def test_int8_products_are_those_of_rounded_activations(shape: tuple[int, ...], format: str) -> None:
    """Against a slow float64 reference of the formula; outputs are rounded to bfloat16 once."""
    model = seeded(lambda: nn.Sequential(nn.Linear(7, 4)))
    made = low_precision(model, format=format, members=3)
    x = draw(*shape).bfloat16()
    if len(x):
        x[0] = 0
    found = run(model, made, [x.float()], backend="int8")
    step = x.double().abs().amax(-1, keepdim=True).clamp(min=1e-30) / 127
    whole = (x.double() / step).round()
    for member, outputs in enumerate(found):
        weight = made.params(member)["0.weight"].double()
        wanted = step * (whole @ weight.T) + made.params(member)["0.bias"].double()
        torch.testing.assert_close(outputs.double(), wanted, rtol=2**-8, atol=2e-6)


@pytest.mark.parametrize("name", ["vit", "encoder", "convolutions", "resnet", "grouped"])
def test_int8_agrees_with_the_loop_within_its_eight_bits(name: str) -> None:
    make, data = NETWORKS[name]
    model = seeded(make)
    made = low_precision(model, format="int5", members=2)
    assert distance(run(model, made, data, backend="int8"), run(model, made, data)) < 0.05


def test_what_int8_cannot_hold_runs_in_bfloat16() -> None:
    model = seeded(lambda: nn.Sequential(nn.Linear(7, 4)))
    made = low_precision(model, format="int8-asymmetric", members=2)
    data = [draw(5, 7)]
    assert torch.equal(run(model, made, data, backend="int8"), run(model, made, data, backend="bfloat16"))


@pytest.mark.parametrize("way", ["loop", "channels_last", "bfloat16", "int8"])
@pytest.mark.parametrize("name", ["resnet", "vit"])
def test_notes_change_no_bit(name: str, way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    make, data = NETWORKS[name]
    model = seeded(make)
    made = low_precision(model, format="int4", members=18)
    assert any(family is not made.families[name] for name, family in noted(made).families.items())
    found = run(model, made, data, backend=way)
    monkeypatch.setattr(backends, "NOTED", 0)
    assert noted(made) is made
    assert torch.equal(found, run(model, made, data, backend=way))
