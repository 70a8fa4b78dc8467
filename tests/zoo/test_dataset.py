import pickle

import pytest
import torch

from pluria.core.errors import DataError
from pluria.zoo.dataset import IGNORED, Dataset


def images(n: int = 4, *, targets: list[int] | None = None, **options: object) -> Dataset:
    pixels = torch.arange(n * 3 * 4, dtype=torch.uint8).reshape(n, 3, 2, 2)
    labels = torch.tensor([i % 2 for i in range(n)] if targets is None else targets)
    return Dataset(pixels, labels, ("cat", "dog"), "tiny", **options)  # type: ignore[arg-type]


def floats(values: torch.Tensor, **options: object) -> Dataset:
    return Dataset(values, torch.zeros(len(values), dtype=torch.int64), ("a",), "floats", **options)  # type: ignore[arg-type]


def test_images_are_divided_then_centred_and_scaled_per_channel() -> None:
    data = images(mean=(0.1, 0.2, 0.3), std=(0.5, 1.0, 2.0))
    (inputs, targets) = next(iter(data.batches(4)))
    assert inputs.dtype == torch.float32
    # row 1, channel 2, pixel (1, 0) is the 22nd value: (22 / 255 - 0.3) / 2
    assert inputs[1, 2, 1, 0].item() == pytest.approx((22 / 255 - 0.3) / 2, rel=1e-6)
    assert inputs[3, 0, 0, 1].item() == pytest.approx((37 / 255 - 0.1) / 0.5, rel=1e-6)
    assert torch.equal(targets, torch.tensor([0, 1, 0, 1]))


def test_floating_inputs_are_taken_as_they_are_and_given_scale_wins() -> None:
    values = torch.tensor([[1.5, -2.0], [0.0, 4.0]], dtype=torch.float64)
    assert torch.equal(floats(values).normalise(values), values.float())
    assert torch.equal(floats(values, scale=2.0).normalise(values), values.float() / 2)
    assert torch.equal(floats(values[:, 0], mean=(1.0,)).normalise(values[:, 0]), torch.tensor([0.5, -1.0]))


def test_batches_keep_order_repeat_and_let_the_last_one_be_smaller() -> None:
    data = images(5)
    batches = data.batches(2)
    first, second = list(batches), list(batches)
    assert [len(x) for x, _ in first] == [2, 2, 1]
    assert len(batches) == 3
    assert torch.equal(torch.cat([x for x, _ in first]), data.normalise(data.inputs))
    assert all(torch.equal(a, b) for (a, _), (b, _) in zip(first, second, strict=True))
    with pytest.raises(ValueError, match="at least one example, not 0"):
        data.batches(0)


def test_take_keeps_the_order_asked_for() -> None:
    data = images(4)
    assert torch.equal(data.take([3, 0]).inputs, data.inputs[[3, 0]])
    assert torch.equal(data.take(slice(1, 3)).targets, data.targets[1:3])
    assert torch.equal(data.take([True, False, False, True]).inputs, data.inputs[[0, 3]])
    assert data.take([3, 0]).classes == data.classes
    with pytest.raises(IndexError):
        data.take([4])
    with pytest.raises(DataError, match="no example"):
        data.take([])


@pytest.mark.parametrize(
    "targets",
    [[0, 0, 0, 0, 1, 1, 1, 1, 1], [0, 1, 0, 1, 0, 1, 0, 1], [0, IGNORED, 1, 0, IGNORED, 1]],
    ids=["sorted", "cycle", "ignored"],
)
def test_halves_share_no_row_and_balance_every_class(targets: list[int]) -> None:
    data = images(len(targets), targets=targets)
    calibration, figures = data.split_half()
    rows = [half.inputs[:, 0, 0, 0].tolist() for half in (calibration, figures)]
    assert sorted(rows[0] + rows[1]) == data.inputs[:, 0, 0, 0].tolist()
    assert rows[0] == sorted(rows[0])
    assert rows[1] == sorted(rows[1])
    assert abs(len(calibration) - len(figures)) <= 1
    for label in set(targets):
        assert abs(int((calibration.targets == label).sum() - (figures.targets == label).sum())) <= 1
    assert (calibration.name, figures.name) == ("tiny (calibration half)", "tiny (figures half)")


def test_halves_of_a_known_case_and_of_dense_targets() -> None:
    # sorted by target: rows 1 4 0 2 3, dealt out: 1 0 3 and 4 2
    data = images(5, targets=[1, 0, 1, 1, 0])
    calibration, figures = data.split_half()
    assert torch.equal(calibration.inputs, data.inputs[[0, 1, 3]])
    assert torch.equal(figures.inputs, data.inputs[[2, 4]])
    dense = Dataset(torch.zeros(3, 2), torch.tensor([[0, 1], [1, 1], [1, 0]]), ("a", "b"), "dense")
    assert torch.equal(dense.split_half()[1].targets, torch.tensor([[1, 1]]))


def test_a_single_example_cannot_be_split() -> None:
    with pytest.raises(DataError, match="1 example cannot be split"):
        images(1).split_half()


@pytest.mark.parametrize(
    ("inputs", "targets", "message"),
    [
        (torch.zeros(2, 1), torch.tensor([0, 2]), r"target 2 in row 1, but 2 classes are numbered 0\.\.1"),
        (torch.zeros(2, 1), torch.tensor([-1, 0]), "target -1 in row 0"),
        (torch.zeros(2, 1), torch.tensor([[0, 1], [1, 7]]), "target 7 in row 1"),
        (torch.zeros(2, 1), torch.tensor([0.0, 1.0]), "targets are torch.float32"),
        (torch.zeros(3, 1), torch.tensor([0, 1]), "3 inputs but 2 targets"),
        (torch.zeros(0, 1), torch.zeros(0, dtype=torch.int64), "no example"),
        (torch.tensor(1.0), torch.tensor([0]), "first axis"),
        (torch.tensor([[1.0], [float("nan")]]), torch.tensor([0, 1]), "in 1 rows, the first is row 1"),
        (torch.tensor([[[float("inf")]], [[0.0]]]), torch.tensor([0, 1]), "the first is row 0"),
        (torch.zeros(2, 1, dtype=torch.int32), torch.tensor([0, 1]), "cast them to uint8"),
    ],
)
def test_malformed_data_are_refused(inputs: torch.Tensor, targets: torch.Tensor, message: str) -> None:
    with pytest.raises(DataError, match=message):
        Dataset(inputs, targets, ("a", "b"), "bad")


def test_ignored_targets_pass() -> None:
    assert len(images(2, targets=[IGNORED, 1])) == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mean": (0.1, 0.2)}, "mean needs 1 or 3"),
        ({"mean": (float("nan"),)}, "mean needs"),
        ({"std": (0.0,)}, "must be positive"),
        ({"std": (1.0, 1.0, -1.0)}, "must be positive"),
        ({"scale": 0.0}, "must be positive"),
        ({"scale": float("nan")}, "must be positive"),
    ],
)
def test_a_normalisation_that_does_not_fit_is_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        images(**options)


def test_batches_travel_to_other_processes() -> None:
    batches = images(3).batches(2)
    copy = pickle.loads(pickle.dumps(batches))
    assert all(torch.equal(a[0], b[0]) for a, b in zip(batches, copy, strict=True))
