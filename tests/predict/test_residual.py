"""Networks whose sums and ReLUs go into the layer before them give what they give by themselves."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pluria.core.ensemble import join
from pluria.predict import gather, logits, predict
from pluria.predict.backends import Storage
from pluria.predict.backends import backend as make
from pluria.predict.choose import distance
from pluria.predict.fold import Ending, graph_of
from pluria.sample import low_precision
from predict.networks import draw, seeded

Form = Callable[[Tensor, Tensor], Tensor]


def onto(one: Tensor, other: Tensor) -> Tensor:
    one += other
    return one


def before(one: Tensor, other: Tensor) -> Tensor:
    other = 1 * other
    other += one
    return other


def changed(one: Tensor, other: Tensor) -> Tensor:
    other = 1 * other
    out = one + other
    other.mul_(2)
    return out


TAKEN: dict[str, Form] = {
    "plus": lambda one, other: one + other,
    "other first": lambda one, other: other + one,
    "by name": torch.add,
    "in place": onto,
    "a number": lambda one, other: one + 1,
    "of another shape": lambda one, other: one + other[:, :1],
    "of another dtype": lambda one, other: one + other.float(),
    "of another dtype, in place": lambda one, other: onto(one, other.float()),
    "changed behind it": changed,
    "in another order": lambda one, other: one + other.contiguous(memory_format=torch.contiguous_format),
}
LEFT: dict[str, Form] = {
    "scaled": lambda one, other: torch.add(one, other, alpha=2),
    "minus": lambda one, other: one - other,
    "in place of what is no layer's": before,
    "with itself": lambda one, other: one + one,
    "read again": lambda one, other: (one + other) * one,
}
FORMS = {**TAKEN, **LEFT}
RELUS: dict[str, Callable[[Tensor], Tensor]] = {
    "a module": nn.ReLU(),
    "a module in place": nn.ReLU(inplace=True),
    "a function": F.relu,
    "torch's": torch.relu,
    "a method": lambda y: y.relu(),
    "in place": lambda y: F.relu(y, inplace=True),
    "a method in place": lambda y: y.relu_(),
}


class Block(nn.Module):
    """Two convolutions around a ReLU, a sum with what came in or with a third, a ReLU, and one more convolution."""

    def __init__(self, form: Form, end: Callable[[Tensor], Tensor], *, short: bool) -> None:
        super().__init__()
        self.form, self.one, self.two = form, nn.Conv2d(4, 8, 3, padding=1), nn.Conv2d(8, 4, 3, padding=1)
        self.norm, self.relu, self.end = nn.BatchNorm2d(4), nn.ReLU(), end
        self.short = nn.Conv2d(4, 4, 1) if short else nn.Identity()
        self.last = nn.Conv2d(4, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(self.two(self.relu(self.one(x))))
        return self.last(self.end(self.form(y, self.short(x))).to(x.dtype))


def block(form: Form, end: Callable[[Tensor], Tensor] = F.relu, *, short: bool = False) -> nn.Module:
    made = seeded(lambda: Block(form, end, short=short).eval())
    made.norm.running_mean.copy_(draw(4))
    return made


def agrees(model: nn.Module, backend: str) -> bool:
    made, x = low_precision(model, format="int5", members=2), draw(5, 4, 9, 7)
    found, wanted = (gather(predict(model, made, [x], backend=way))[0] for way in (backend, "loop"))  # type: ignore[arg-type]
    return distance(found, wanted) < (1e-5 if backend == "channels_last" else 0.02)


WAYS = pytest.mark.parametrize("backend", ["channels_last", "bfloat16", "int8"])


@WAYS
@pytest.mark.parametrize("short", [True, False])
@pytest.mark.parametrize("name", FORMS)
def test_sums_give_what_they_give_by_themselves(name: str, short: bool, backend: str) -> None:
    assert agrees(block(FORMS[name], short=short), backend)
    assert agrees(block(FORMS[name], torch.tanh, short=short), backend)


@WAYS
@pytest.mark.parametrize("name", RELUS)
def test_every_kind_of_relu(name: str, backend: str) -> None:
    model = block(TAKEN["plus"], RELUS[name])
    assert graph_of(model).endings["two"] == ("sum", "relu")
    assert agrees(model, backend)


@pytest.mark.parametrize("name", FORMS)
def test_only_a_sum_that_alone_reads_the_layer_is_an_ending(name: str) -> None:
    sums: dict[str, Ending] = {"two": ("sum", "relu")} if name in TAKEN else {}
    assert graph_of(block(FORMS[name])).endings == {"one": ("relu",), **sums}


class Other(nn.Module):
    """Runs other than it is traced: by an argument that nobody gives, or what only a tensor is."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.one, self.two, self.relu, self.how = nn.Conv2d(4, 4, 3), nn.Conv2d(4, 4, 1), nn.ReLU(), how

    def forward(self, x: Tensor, more: Tensor | None = None) -> Tensor:
        y = self.one(x)
        if self.how == "sum" and more is not None:
            y = y + more
        elif self.how == "looks" and isinstance(y, Tensor):
            y = y * (y.abs().mean() > 0)
        elif more is None:
            y = y - 0.3
        return self.two(self.relu(y))


@WAYS
@pytest.mark.parametrize("how", ["sum", "looks", "less"])
def test_networks_that_run_other_than_their_graph(how: str, backend: str) -> None:
    model = seeded(lambda: Other(how))
    assert "one" in graph_of(model).endings
    assert agrees(model, backend)


def test_nothing_waits_where_somebody_listens() -> None:
    model = block(TAKEN["plus"])
    model.register_forward_hook(lambda module, inputs, output: None)
    assert graph_of(model).endings
    model.short.register_forward_hook(lambda module, inputs, output: None)
    assert not graph_of(model).endings


@pytest.mark.parametrize("name", ["bfloat16", "int8"])
def test_one_image_without_an_axis_for_images(name: str) -> None:
    model = block(TAKEN["plus"])
    made, x = low_precision(model, format="int5", members=1), draw(4, 9, 7)
    run = make(name, model, made, Storage(torch.device("cpu"), None))  # type: ignore[arg-type]
    with torch.inference_mode():
        torch.testing.assert_close(run([0], [x], logits)[0], run([0], [x[None]], logits)[0, 0], rtol=0.1, atol=0.1)
        assert run([0], [x[None][:0]], logits).shape == (1, 0, 3, 9, 7)


class Keeping(nn.Module):
    """Keeps what a layer gave for itself, or gives it too where it is not traced."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.one, self.two, self.relu, self.how = nn.Conv2d(4, 4, 3), nn.Conv2d(4, 4, 1), nn.ReLU(), how

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, ...]:
        y = self.one(x)
        out = self.two(self.relu(y))
        if self.how == "keeps":
            self.kept = y
        return (out, y) if self.how == "gives" and isinstance(y, Tensor) else out


@pytest.mark.parametrize("backend", ["bfloat16", "int8"])
@pytest.mark.parametrize("how", ["keeps", "gives"])
def test_what_is_kept_ends_in_a_message(how: str, backend: str) -> None:
    model = seeded(lambda: Keeping(how))
    with pytest.raises(RuntimeError, match="use the loop"):
        agrees(model, backend)


class Looking(nn.Module):
    """Goes through its modules by kind."""

    def __init__(self) -> None:
        super().__init__()
        parts = [nn.Conv2d(4, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 4, 3, padding=1), nn.ReLU()]
        self.parts = nn.ModuleList(parts)

    def forward(self, x: Tensor) -> Tensor:
        got = x
        for part in self.parts:
            x = part(x)
            if isinstance(part, nn.ReLU):
                got = got + x
        return got


@WAYS
def test_relus_stay_what_they_are(backend: str) -> None:
    assert agrees(seeded(Looking), backend)


def test_only_a_relu_is_one() -> None:
    model = nn.Sequential()
    model.add_module("conv", nn.Conv2d(3, 3, 1))
    model.add_module("relu", nn.LeakyReLU())
    assert graph_of(model).endings == {}


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_in_the_midst_of_autocast(dtype: torch.dtype) -> None:
    with torch.autocast("cpu", dtype):
        assert agrees(block(TAKEN["plus"]), "bfloat16")


@pytest.mark.parametrize("backend", ["bfloat16", "int8"])
def test_members_with_scales_of_their_own(backend: str) -> None:
    """What is kept of scale and shift for one member is not what another is spread by."""
    one, other = block(TAKEN["plus"]), block(TAKEN["plus"])
    with torch.no_grad():
        other.two.weight.mul_(3)
        other.norm.running_mean.add_(1)
    drawn = [low_precision(model, format="int5", members=2) for model in (one, other)]
    made, x = join(*drawn).take([0, 2, 1, 3]), draw(5, 4, 9, 7)
    found, wanted = (gather(predict(one, made, [x], backend=way))[0] for way in (backend, "loop"))  # type: ignore[arg-type]
    for member in range(4):
        assert distance(found[member], wanted[member]) < 0.02
