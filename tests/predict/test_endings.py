"""Outputs that wait are completed by their sum and ReLU in one pass, and by whatever else reads them before it does."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pluria.predict.endings import Endings
from pluria.predict.images import Images
from predict.networks import draw, seeded


class Called(nn.Module):
    """Any function as a network."""

    def __init__(self, function: Callable[..., Tensor]) -> None:
        super().__init__()
        self.forward = function  # type: ignore[method-assign]


def layer(endings: Endings | None = None, *ending: str) -> Images:
    made = seeded(lambda: Images(nn.Conv2d(4, 6, 3, padding=1, bias=False, dtype=torch.bfloat16)))
    made.requires_grad_(False)
    made.scale.copy_(1 + draw(6).abs())
    made.shift.copy_(draw(6))
    if endings is not None:
        made.wait(ending, endings)  # type: ignore[arg-type]
    return made


@pytest.mark.parametrize("count", [1, 3])
def test_all_is_rounded_once(count: int) -> None:
    endings = Endings()
    made, x, other = layer(endings, "sum", "relu"), draw(count, 4, 11, 5).bfloat16(), draw(count, 6, 11, 5, seed=1)
    scale, shift, other = made.scale.view(1, -1, 1, 1), made.shift.view(1, -1, 1, 1), other.bfloat16()
    with torch.inference_mode():
        wanted = made.layer(x).float() * scale + shift + other.float()
        assert torch.equal(endings.around(Called(lambda: (made(x) + other).relu()))(), wanted.relu().bfloat16())
        assert torch.equal(endings.around(Called(lambda: F.relu(other + made(x))))(), wanted.relu().bfloat16())
        assert torch.equal(endings.around(Called(lambda: made(x) + other))(), wanted.bfloat16())


def onto_nothing(y: Tensor) -> Tensor:
    held = torch.zeros(2, 6, 5, 5, dtype=torch.bfloat16)
    held.add_(y)
    return held


READERS: dict[str, Callable[[Tensor], Tensor]] = {
    "a function": lambda y: y * 1,
    "a method": lambda y: y.flatten(),
    "a sum of two that wait": lambda y: y + y,
    "in a list": lambda y: torch.cat([y, y]),
    "by name": lambda y: torch.add(input=y, other=0),
    "what it is added onto": onto_nothing,
    "a layer": nn.Conv2d(6, 4, 1, dtype=torch.bfloat16).requires_grad_(False),
    "nobody": lambda y: y,
}


@pytest.mark.parametrize("ending", [("sum",), ("relu",), ("sum", "relu")])
@pytest.mark.parametrize("name", READERS)
def test_whatever_else_reads_what_waits_completes_it(name: str, ending: tuple[str, ...]) -> None:
    endings, x = Endings(), draw(2, 4, 5, 5).bfloat16()
    waits, plain = layer(endings, *ending), layer()
    with torch.inference_mode():
        assert torch.equal(endings.around(Called(lambda: READERS[name](waits(x))))(), READERS[name](plain(x)))
        assert not endings.waiting


def test_one_layer_reads_what_another_left_open() -> None:
    endings, x = Endings(), draw(2, 4, 5, 5).bfloat16()
    with torch.inference_mode():
        last = Images(nn.Conv2d(6, 4, 1, dtype=torch.bfloat16)).requires_grad_(False)
        waits, plain = layer(endings, "relu"), layer()
        wanted = last(plain(x))
        last.wait((), endings)
        assert torch.equal(endings.around(Called(lambda: last(waits(x))))(), wanted)


def test_what_is_read_again_ends_in_a_message() -> None:
    endings, x, other = Endings(), draw(2, 4, 5, 5).bfloat16(), draw(2, 6, 5, 5).bfloat16()
    cut, summed = layer(endings, "relu"), layer(endings, "sum", "relu")
    for again in (lambda: (y := cut(x)).relu() * y, lambda: ((y := summed(x)) + other) * y):
        with torch.inference_mode(), pytest.raises(RuntimeError, match="use the loop"):
            endings.around(Called(again))()


def test_a_network_that_breaks_off_leaves_nothing_behind() -> None:
    endings, x = Endings(), draw(2, 4, 5, 5).bfloat16()
    waits = layer(endings, "relu")

    def broken(given: Tensor) -> Tensor:
        waits(given)
        raise MemoryError("no memory")

    with torch.inference_mode():
        with pytest.raises(MemoryError, match="no memory"):
            endings.around(Called(broken))(x)
        assert not endings.waiting
        assert torch.equal(endings.around(waits)(x), layer()(x))


def test_a_network_without_endings_is_called_as_it_is() -> None:
    assert Endings().around(model := nn.Identity()) is model
