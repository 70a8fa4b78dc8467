"""backend="auto": what disagrees, fails or would not pay is dropped with a line; the fastest of the rest is taken."""

import logging
import time

import pytest
import torch
from torch import Tensor, nn

from core.laws import same_bits
from pluria.predict import Choice, choose_backend, gather, loop, predict
from pluria.predict import choose as module
from pluria.sample import low_precision
from predict.networks import batches, convolutional, ensemble, images


class Slow(nn.Module):
    """A network that is slow in float32; `how` says what it does in bfloat16."""

    def __init__(self, how: str = "right") -> None:
        super().__init__()
        self.inner, self.how = convolutional(), how

    def forward(self, x: Tensor) -> Tensor:
        y = self.inner(x)
        if x.dtype == torch.float32:
            time.sleep(0.05)
        elif self.how == "wrong":
            y = y + 1
        elif self.how == "nan":
            y = y / 0
        elif self.how == "lacking":
            raise NotImplementedError("'strange_cpu' not implemented for 'BFloat16'")
        elif self.how == "memory":
            raise RuntimeError(
                "[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"
            )
        return y - y.mean(0) if self.how == "together" else y


def chosen(how: str, **options: object) -> Choice:
    model = Slow(how)
    return choose_backend(model, low_precision(model, members=3), batches(40, 40), **options)  # type: ignore[arg-type]


def test_the_fastest_that_agrees_is_taken(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "pluria.predict"):
        choice = chosen("right")
    assert choice.backend == "bfloat16"
    assert choice.seconds < choice.reference
    assert 0 < choice.error <= choice.tolerance == 0.02
    assert str(choice) in caplog.text
    assert str(choice).startswith("backend bfloat16, ")
    assert "compiled: not tried, all of it takes about 0 s" in str(choice)
    assert "vmap: not tried, blocks have one member" in str(choice)


@pytest.mark.parametrize(
    ("how", "line"),
    [
        ("wrong", "dropped: more than 2.0e-02"),
        ("nan", "error inf, dropped: more than"),
        ("lacking", "bfloat16: dropped, NotImplementedError: 'strange_cpu' not implemented for 'BFloat16'"),
        ("memory", "bfloat16: dropped, RuntimeError: [enforce fail] DefaultCPUAllocator: can't allocate memory"),
    ],
)
def test_what_is_dropped_has_a_line(how: str, line: str) -> None:
    choice = chosen(how)
    assert choice.backend in ("loop", "channels_last")
    assert line in str(choice)


def test_a_batch_whose_examples_depend_on_each_other_stays_whole() -> None:
    choice = chosen("together")
    assert choice.backend == "bfloat16"
    assert choice.batch is None
    assert any(line.startswith("bfloat16, 32 at a time: ") and "dropped" in line for line in choice.tried)


@pytest.fixture
def small_trials(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST", 16)
    monkeypatch.setattr(loop, "MOST", 16)
    monkeypatch.setattr(module, "TRYING", 1)


class Called(nn.Module):
    """A network whose time is that of being called, and which looks at its batch if it is told to."""

    def __init__(self, *, looks: bool = False) -> None:
        super().__init__()
        self.inner, self.looks = convolutional(), looks

    def forward(self, x: Tensor) -> Tensor:
        y = self.inner(x)
        time.sleep(0.05)
        return y - y.mean(0) if self.looks else y


@pytest.mark.usefixtures("small_trials")
def test_small_batches_are_joined_where_that_is_faster_and_come_back_apart() -> None:
    model, data = Called(), batches(4, 22)
    made = low_precision(model, members=3)
    choice = choose_backend(model, made, data)
    assert choice.batch == 16
    assert any(", batches together up to 16: " in line and "for 4 batches" in line for line in choice.tried)
    assert "16 examples at a time" in str(choice)
    found, wanted = (list(predict(model, made, data, backend=how)) for how in (choice, "loop"))
    assert [(b.ids, b.members) for b in found] == [(b.ids, b.members) for b in wanted]
    for one, other in zip(found, wanted, strict=True):
        assert torch.equal(one.targets, other.targets)
        assert module.distance(one.outputs, other.outputs) < 0.02


@pytest.mark.usefixtures("small_trials")
def test_batches_that_depend_on_their_company_are_not_joined() -> None:
    model = Called(looks=True)
    choice = choose_backend(model, low_precision(model, members=3), batches(4, 22))
    assert choice.batch is None
    assert any(", batches together up to 16: " in line and "dropped" in line for line in choice.tried)


@pytest.mark.parametrize("count", [8, 22])
def test_batches_are_joined_only_where_there_is_work_for_it(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "TRYING", 5)
    model = Called()
    lines = choose_backend(model, low_precision(model, members=3), batches(4, count)).tried
    assert not any("together" in line for line in lines)


def test_work_that_is_only_begun_is_waited_for() -> None:
    class Late:
        """Outputs that a device has not computed yet."""

        def cpu(self) -> None:
            time.sleep(0.05)

    trial = module.Trial((0, 1), [[images()], [images()]], lambda x: x)
    assert trial.seconds(lambda members, each, output: Late(), None) >= 0.02  # type: ignore[arg-type, return-value]


@pytest.mark.parametrize("batch", [0, -1])
def test_a_choice_runs_one_example_or_more(batch: int) -> None:
    with pytest.raises(ValueError, match=f"one example or more is run at a time.*got {batch}"):
        Choice("loop", batch)


def test_a_stricter_tolerance_keeps_float32() -> None:
    assert chosen("right", tolerance=1e-5).backend in ("loop", "channels_last")


@pytest.mark.parametrize("block", [1, 2])
def test_auto_gives_the_outputs_of_the_loop(block: int) -> None:
    views = (lambda x: x, lambda x: x.flip(-1))
    options = {"views": views, "block": block}
    found, targets = gather(predict(convolutional(), ensemble(), batches(), backend="auto", **options))
    wanted, labels = gather(predict(convolutional(), ensemble(), batches(), **options))
    assert module.distance(found, wanted) < 0.02
    assert torch.equal(targets, labels)


def test_a_choice_given_back_repeats_the_bits() -> None:
    choice = Choice("bfloat16", 3)
    one, other = (gather(predict(convolutional(), ensemble(), batches(), backend=choice))[0] for _ in range(2))
    assert same_bits(one, other)


def test_other_dtypes_and_no_batches_take_the_loop() -> None:
    model = convolutional().double()
    made = low_precision(model, members=2)
    assert "float64, not float32" in str(choose_backend(model, made, [images().double()]))
    assert choose_backend(model, made, []) == Choice("loop", tried=("nothing tried: there was no batch",))
    assert list(predict(model, made, [], backend="auto")) == []


def test_compiling_is_tried_where_there_is_work_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "COMPILING", 0.0)
    monkeypatch.setattr(torch, "compile", lambda model, dynamic: _refuse)
    assert "compiled: dropped, RuntimeError: no C compiler" in str(chosen("right"))


def _refuse(*args: object) -> None:
    raise RuntimeError("no C compiler")


def test_options_that_a_back_end_settles_itself_are_refused() -> None:
    with pytest.raises(ValueError, match="back end 'bfloat16' keeps its own dtype and order"):
        predict(convolutional(), ensemble(), batches(), backend="bfloat16", dtype=torch.bfloat16)


def test_distances() -> None:
    reference = torch.tensor([[1.0, 3.0]])
    assert module.distance(reference, reference) == 0
    assert module.distance(reference + 1, reference) == pytest.approx(1.0)
    assert module.distance(reference[:, :1], reference) == float("inf")
    assert module.distance(reference * float("nan"), reference) == float("inf")
    assert module.distance(torch.ones(2), torch.zeros(2)) > 1
