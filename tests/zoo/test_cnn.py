import pytest
import torch
from torch import nn

from pluria.zoo.cnn import small_cnn


@pytest.mark.parametrize(("channels", "size", "classes"), [(1, 8, 10), (3, 28, 4), (2, 5, 2)])
def test_shapes(channels: int, size: int, classes: int) -> None:
    model = small_cnn(channels=channels, size=size, classes=classes, width=4)
    assert model(torch.zeros(3, channels, size, size)).shape == (3, classes)


def test_norm_and_dropout_are_there_only_when_asked_for() -> None:
    kinds = [
        {type(m) for m in small_cnn(norm=norm, dropout=p).modules()} for norm, p in (("batch", 0.0), ("none", 0.2))
    ]
    assert nn.BatchNorm2d in kinds[0]
    assert nn.Dropout not in kinds[0]
    assert nn.BatchNorm2d not in kinds[1]
    assert nn.Dropout in kinds[1]


def test_options_keep_the_names_of_what_they_share() -> None:
    shared = {"conv1.weight", "conv2.weight", "conv3.weight", "head.weight", "head.bias"}
    assert shared <= set(small_cnn().state_dict()) & set(small_cnn(norm="none", dropout=0.1).state_dict())


def test_refusals() -> None:
    with pytest.raises(ValueError, match="at least 4 x 4"):
        small_cnn(size=3)
    with pytest.raises(ValueError, match="no norm is called 'batchnorm'; did you mean 'batch'"):
        small_cnn(norm="batchnorm")
