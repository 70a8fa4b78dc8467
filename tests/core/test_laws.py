"""Each law can be broken: a family that breaks it is caught."""

from dataclasses import dataclass, field

import pytest
import torch
from torch import Tensor

from core.laws import check_outs, check_quiet, check_range, check_repeats, check_rows, same_bits
from pluria.core.family import Shared


@dataclass(frozen=True)
class Counting(Shared):
    """Each write gives the next number."""

    calls: list[int] = field(default_factory=list)

    def write(self, member: int, out: Tensor) -> None:
        self.calls.append(member)
        out.fill_(len(self.calls))


@dataclass(frozen=True)
class Random(Shared):
    """Draws from the global generator."""

    def write(self, member: int, out: Tensor) -> None:
        out.copy_(torch.rand(self.shape))


@dataclass(frozen=True)
class Eating(Shared):
    """Changes its own tensor."""

    def write(self, member: int, out: Tensor) -> None:
        out.copy_(self.value.mul_(0.5))


@dataclass(frozen=True)
class Straight(Shared):
    """Takes every tensor for a contiguous one."""

    def write(self, member: int, out: Tensor) -> None:
        out.as_strided((out.numel(),), (1,)).copy_(self.value.flatten())


VALUE = torch.arange(1.0, 7.0).view(2, 3)


def test_bits_differ_in_sign_dtype_and_shape() -> None:
    assert same_bits(torch.tensor([0.0]), torch.tensor([0.0]))
    assert not same_bits(torch.tensor([0.0]), torch.tensor([-0.0]))
    assert not same_bits(torch.tensor([0.0]), torch.tensor([0]))
    assert not same_bits(torch.tensor([0.0]), torch.tensor(0.0))


def test_a_family_with_a_state_is_caught() -> None:
    with pytest.raises(AssertionError):
        check_rows(Counting(VALUE), (0, 1))
    with pytest.raises(AssertionError):
        check_repeats(lambda: Counting(VALUE), (0, 1))


def test_a_family_on_the_global_generator_is_caught() -> None:
    with pytest.raises(AssertionError):
        check_quiet(Random(VALUE), (0, 1))
    with pytest.raises(AssertionError):
        check_repeats(lambda: Random(VALUE), (0, 1))


def test_a_family_that_changes_its_tensor_is_caught() -> None:
    with pytest.raises(AssertionError):
        check_quiet(Eating(VALUE.clone()), (0, 1))


def test_a_family_blind_to_memory_layout_is_caught() -> None:
    with pytest.raises(AssertionError):
        check_outs(Straight(VALUE), (0,))


def test_a_family_without_limits_is_caught() -> None:
    with pytest.raises(pytest.fail.Exception):
        check_range(Straight(VALUE))
