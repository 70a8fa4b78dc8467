"""Sums that go into the layer before them give what they would give by themselves, and nothing else goes with them."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from pluria.predict import gather, logits, predict
from pluria.predict.backends import Storage
from pluria.predict.backends import backend as make
from pluria.predict.choose import distance
from pluria.predict.fold import graph_of
from pluria.predict.images import Images
from pluria.predict.sums import Sums
from pluria.sample import low_precision
from predict.networks import draw

Form = Callable[[Tensor, Tensor], Tensor]


def onto(one: Tensor, other: Tensor) -> Tensor:
    one += other
    return one


def before(one: Tensor, other: Tensor) -> Tensor:
    other = 1 * other
    other += one
    return other


TAKEN: dict[str, Form] = {
    "plus": lambda one, other: one + other,
    "other first": lambda one, other: other + one,
    "by name": torch.add,
    "in place": onto,
    "a number": lambda one, other: one + 1,
    "of another shape": lambda one, other: one + other[:, :1],
    "of another dtype": lambda one, other: one + other.float(),
    "in another order": lambda one, other: one + other.contiguous(memory_format=torch.contiguous_format),
}
LEFT: dict[str, Form] = {
    "scaled": lambda one, other: torch.add(one, other, alpha=2),
    "minus": lambda one, other: one - other,
    "in place of what is no layer's": before,
    "with itself": lambda one, other: one + one,
    "read again": lambda one, other: (one + other) * one,
}


class Block(nn.Module):
    """Two convolutions around a ReLU, a sum with what came in or with a third, and a ReLU behind it."""

    def __init__(self, form: Form, *, short: bool, end: bool) -> None:
        super().__init__()
        self.form, self.one, self.two = form, nn.Conv2d(4, 8, 3, padding=1), nn.Conv2d(8, 4, 3, padding=1)
        self.norm, self.relu = nn.BatchNorm2d(4), nn.ReLU()
        self.short = nn.Conv2d(4, 4, 1) if short else nn.Identity()
        self.end = nn.ReLU() if end else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(self.two(self.relu(self.one(x))))
        return self.end(self.form(y, self.short(x)))


def block(form: Form, *, short: bool = False, end: bool = True) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        made = Block(form, short=short, end=end).eval()
    made.norm.running_mean.copy_(draw(4))
    return made


@pytest.mark.parametrize("backend", ["channels_last", "bfloat16", "int8"])
@pytest.mark.parametrize("end", [True, False])
@pytest.mark.parametrize("short", [True, False])
@pytest.mark.parametrize("name", [*TAKEN, *LEFT])
def test_sums_give_what_they_give_by_themselves(name: str, short: bool, end: bool, backend: str) -> None:
    model = block({**TAKEN, **LEFT}[name], short=short, end=end)
    made, x = low_precision(model, format="int5", members=2), draw(5, 4, 9, 7)
    found, wanted = (gather(predict(model, made, [x], backend=way))[0] for way in (backend, "loop"))  # type: ignore[arg-type]
    assert distance(found, wanted) < (1e-5 if backend == "channels_last" else 0.02)


@pytest.mark.parametrize("name", [*TAKEN, *LEFT])
def test_only_a_sum_that_alone_reads_the_layer_is_taken(name: str) -> None:
    graph = graph_of(block({**TAKEN, **LEFT}[name]))
    assert graph.sums == (frozenset({"two"}) if name in TAKEN else frozenset())
    assert graph.ends == ({"one": "relu", "two": "end"} if name in TAKEN else {"one": "relu"})


def test_one_of_two_layers_takes_their_sum() -> None:
    assert graph_of(block(TAKEN["plus"], short=True)).sums == {"two"}
    assert graph_of(block(TAKEN["other first"], short=True)).sums == {"short"}


def layer(sums: Sums | None) -> Images:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        made = Images(nn.Conv2d(4, 6, 3, padding=1, bias=False, dtype=torch.bfloat16))
    made.requires_grad_(False)
    made.scale.copy_(1 + draw(6).abs())
    made.shift.copy_(draw(6))
    assert made.cut()
    assert sums is None or made.wait(sums)
    return made


def by_hand(made: Images, x: Tensor, other: Tensor) -> Tensor:
    """In float32, rounded once."""
    scale, shift = (part.view(1, -1, 1, 1) for part in (made.scale, made.shift))
    return (made.layer(x).float() * scale + shift + other.float()).relu().bfloat16()


@pytest.mark.parametrize("count", [1, 3])
def test_all_is_rounded_once(count: int) -> None:
    sums = Sums()
    made, x, other = layer(sums), draw(count, 4, 11, 5).bfloat16(), draw(count, 6, 11, 5, seed=1).bfloat16()
    with torch.inference_mode():
        wanted = by_hand(made, x, other)
        assert torch.equal(sums.around(lambda: made(x) + other)(), wanted)
        assert torch.equal(sums.around(lambda: other + made(x))(), wanted)


def test_one_image_without_an_axis_for_images() -> None:
    model = block(TAKEN["plus"])
    made, x = low_precision(model, format="int5", members=1), draw(4, 9, 7)
    for name in ("bfloat16", "int8"):
        run = make(name, model, made, Storage(torch.device("cpu"), None))  # type: ignore[arg-type]
        with torch.inference_mode():
            torch.testing.assert_close(
                run([0], [x], logits)[0], run([0], [x[None]], logits)[0, 0], rtol=0.02, atol=0.02
            )
            assert run([0], [x[None][:0]], logits).shape == (1, 0, 4, 9, 7)


def onto_zeros(y: Tensor) -> Tensor:
    held = torch.zeros(2, 6, 5, 5, dtype=torch.bfloat16)
    held.add_(y)
    return held


READERS: dict[str, Callable[[Tensor], Tensor]] = {
    "a function": lambda y: y * 1,
    "a method": lambda y: y.flatten(),
    "in a list": lambda y: torch.cat([y, y]),
    "by name": lambda y: torch.add(input=y, other=0),
    "what it is added onto": onto_zeros,
    "another layer": lambda y: layer(None)(y[:, :4]),
    "nobody": lambda y: y,
}


@pytest.mark.parametrize("name", READERS)
def test_whatever_else_reads_what_waits_finishes_it(name: str) -> None:
    """The graph says that this does not happen; a network may do other than its graph."""
    sums = Sums()
    waits, plain, x = layer(sums), layer(None), draw(2, 4, 5, 5).bfloat16()
    with torch.inference_mode():
        found = sums.around(lambda: READERS[name](waits(x)))()
        assert torch.equal(found, READERS[name](plain(x)))
        assert not sums.waiting


def test_a_network_that_breaks_off_leaves_nothing_behind() -> None:
    sums = Sums()
    waits, x = layer(sums), draw(2, 4, 5, 5).bfloat16()

    def broken(given: Tensor) -> Tensor:
        waits(given)
        raise MemoryError("no memory")

    with torch.inference_mode():
        with pytest.raises(MemoryError, match="no memory"):
            sums.around(broken)(x)
        assert not sums.waiting
        assert torch.equal(sums.around(waits)(x), layer(None)(x))


def test_a_network_without_such_sums_is_called_as_it_is() -> None:
    assert Sums().around(model := nn.Identity()) is model
