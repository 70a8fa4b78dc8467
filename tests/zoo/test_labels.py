import numpy as np
import pytest
import torch

from pluria.core.errors import DataError
from pluria.zoo.labels import class_names, class_numbers


def test_integers_of_any_width_become_int64_and_a_trailing_axis_of_one_goes() -> None:
    for kind in (np.uint8, np.int16, np.int64, np.bool_):
        numbers = class_numbers(np.array([[1], [0]], dtype=kind), name="y")
        assert numbers.dtype == torch.int64
        assert numbers.tolist() == [1, 0]
    assert class_numbers(np.ones((2, 3), dtype=np.int64), name="y").shape == (2, 3)


@pytest.mark.parametrize("labels", [np.array([0.0, 1.0]), np.array(["cat", "dog"])])
def test_other_types_are_refused(labels: np.ndarray) -> None:
    with pytest.raises(DataError, match="y: targets are"):
        class_numbers(labels, name="y")


def test_names_given_counted_and_derived() -> None:
    targets = torch.tensor([0, 2, -100])
    assert class_names(["a", "b", "c", "d"], targets) == ("a", "b", "c", "d")
    assert class_names(4, targets) == ("0", "1", "2", "3")
    assert class_names(None, targets) == ("0", "1", "2")
    assert class_names(None, targets[:0]) == ()
