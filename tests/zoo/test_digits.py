import sys

import pytest
import torch

from pluria.core.errors import DataError
from pluria.zoo.digits import digits


def test_the_splits_make_up_the_whole_set() -> None:
    train, test, everything = (digits(split=split) for split in ("train", "test", "all"))
    assert (len(train), len(test), len(everything)) == (1000, 797, 1797)
    assert everything.inputs.shape == (1797, 1, 8, 8)
    assert everything.inputs.dtype == torch.uint8
    assert torch.equal(torch.cat([train.inputs, test.inputs]), everything.inputs)
    assert everything.classes == tuple("0123456789")


def test_inputs_run_from_zero_to_one() -> None:
    data = digits(split="all")
    inputs, targets = next(iter(data.batches(1797)))
    assert (inputs.min().item(), inputs.max().item()) == (0.0, 1.0)
    assert torch.equal(targets[:10], torch.arange(10))


def test_wrong_split_and_missing_library(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="did you mean 'test'"):
        digits(split="tests")
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(DataError, match="pip install scikit-learn"):
        digits()
