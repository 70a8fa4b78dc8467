"""Gaussian: mean and covariance, shared coefficients, the limit of no noise."""

import torch

from core.families import NAME, SHAPE, gaussian, normal
from core.laws import same_bits, write
from pluria.core.family import Bits, Shared, block
from pluria.core.gaussian import Gaussian
from pluria.numbers.key import FACTORS, NORMAL, Key, tensor_id
from pluria.numbers.philox import normals

K = 4000


def test_without_spread_it_is_the_mean() -> None:
    mean = normal(*SHAPE)
    family = Gaussian(Shared(mean), torch.zeros(SHAPE), NAME, Key(0))
    assert same_bits(write(family, 5), mean)


def test_values_by_hand() -> None:
    family = gaussian()
    z = normals(family.key, tensor=tensor_id(NAME), group=6, stream=NORMAL, start=0, stop=48).view(SHAPE)
    c = normals(family.key, tensor=tensor_id(FACTORS), group=6, stream=NORMAL, start=0, stop=2)
    wanted = family.mean.value + family.std * z + c[0] * family.factors[0] + c[1] * family.factors[1]
    torch.testing.assert_close(write(family, 6), wanted, rtol=1e-6, atol=1e-6)


def test_mean_and_variance() -> None:
    family = gaussian(factors=False)
    rows = block(family, range(K)).double()
    z = (rows.mean(dim=0) - family.mean.value) / (family.std / K**0.5)
    assert z.abs().max() < 4.5
    # The variance of a sample variance of normals is 2 sigma^4 / K.
    z = (rows.var(dim=0) / family.std.double() ** 2 - 1) / (2 / K) ** 0.5
    assert z.abs().max() < 4.5


def test_factors_are_shared_by_the_tensors_of_a_member() -> None:
    zero = torch.zeros(2)
    one = Gaussian(Shared(zero), zero, "one", Key(0), torch.tensor([[1.0, 2.0]]))
    other = Gaussian(Shared(zero), zero, "other", Key(0), torch.tensor([[10.0, -1.0]]))
    for member in range(5):
        a, b = write(one, member), write(other, member)
        torch.testing.assert_close(a / torch.tensor([1.0, 2.0]), b / torch.tensor([10.0, -1.0]))


def test_chunks_do_not_show(monkeypatch) -> None:
    whole = write(gaussian(), 3)
    monkeypatch.setattr("pluria.core.gaussian.CHUNK", 10)
    assert same_bits(write(gaussian(), 3), whole)


def test_tensors_without_axes_and_bfloat16() -> None:
    scalar = Gaussian(Shared(torch.tensor(2.0)), torch.tensor(0.5), "scale", Key(0))
    assert write(scalar, 0).shape == ()
    assert write(scalar, 0) != write(scalar, 1)
    half = Gaussian(Shared(normal(*SHAPE).bfloat16()), torch.full(SHAPE, 0.1), NAME, Key(0))
    assert write(half, 0).dtype == torch.bfloat16


def test_bits_by_hand() -> None:
    assert gaussian(factors=False).bits([0, 1, 2]) == Bits(2 * 48 * 32 + 64, 3 * 48 * 32, 3 * 48 * 32)
    assert gaussian().bits([0]).file == 4 * 48 * 32 + 64
