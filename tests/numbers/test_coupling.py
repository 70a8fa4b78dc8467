"""Couplings: every member keeps its law, and the joint law does what is promised."""

import pytest
import torch

from pluria.numbers.coupling import COUPLINGS, ONES, Coupling, address
from pluria.numbers.key import ROUNDING, Key
from pluria.numbers.philox import uniforms, words

CELLS = 4000


def draws(coupling: Coupling, members: int, cells: int = CELLS, seed: int = 11) -> torch.Tensor:
    """Uniforms `[members, cells]`, float64."""
    rows = []
    for d in range(members):
        group, mask = address(coupling, d)
        word = words(Key(seed), tensor=5, group=group, stream=ROUNDING, start=0, stop=cells)
        rows.append(uniforms(word ^ (mask << 8)))
    return torch.stack(rows).double()


def error(coupling: Coupling, members: int) -> float:
    """Squared error of the members' mean rounding, in units of s^2, averaged over uniform fractions p."""
    p = (torch.arange(CELLS, dtype=torch.float64) + 0.5) / CELLS
    errors = [(draws(coupling, members, seed=seed) < p).double().mean(0) - p for seed in range(10)]
    return float(torch.stack(errors).square().mean())


@pytest.mark.parametrize("coupling", COUPLINGS)
def test_every_member_is_uniform(coupling: Coupling) -> None:
    for u in draws(coupling, 5):
        counts = torch.histc(u, 16, 0, 1)
        assert float(((counts - CELLS / 16) ** 2 / (CELLS / 16)).sum()) < 37.7  # 15 degrees, one in a thousand
        assert float(u.min()) >= 0
        assert float(u.max()) < 1


@pytest.mark.parametrize("members", [2, 4, 8, 16])
def test_error_of_the_mean_weight(members: int) -> None:
    independent, stratified = error("independent", members), error("stratified", members)
    assert independent == pytest.approx(1 / (6 * members), rel=0.06)
    assert stratified == pytest.approx(1 / (6 * members**2), rel=0.06)


def test_antithetic_error_as_derived() -> None:
    """cov(1[u < p], 1[1 - u < p]) = max(0, 2p - 1) - p^2, so a pair's mean has variance q (1 - 2q) / 2 with
    q = min(p, 1 - p), which is 1/24 on average; pairs are independent."""
    for members in (2, 4, 8):
        assert error("antithetic", members) == pytest.approx(1 / 24 / (members / 2), rel=0.06)


def test_antithetic_pairs_sum_to_one() -> None:
    u = draws("antithetic", 6)
    assert torch.equal(u[0::2] + u[1::2], torch.full((3, CELLS), 1 - 2.0**-24, dtype=torch.float64))
    assert abs(float(torch.corrcoef(u[[0, 2]])[0, 1])) < 4 / CELLS**0.5


@pytest.mark.parametrize("members", [1, 2, 4, 8, 16, 64])
def test_stratified_members_fill_every_stratum_once(members: int) -> None:
    strata = (draws("stratified", members, 50) * members).floor().sort(dim=0).values
    assert torch.equal(strata, torch.arange(members, dtype=torch.float64).unsqueeze(1).expand(members, 50))


def test_addresses_do_not_repeat() -> None:
    for coupling in COUPLINGS:
        assert len({address(coupling, d) for d in range(1000)}) == 1000
    assert address("independent", 7) == (7, 0)
    assert [address("antithetic", d) for d in range(4)] == [(0, 0), (0, ONES), (1, 0), (1, ONES)]
    assert address("stratified", 2**24 - 1) == (0, ONES)


def test_refusals() -> None:
    with pytest.raises(ValueError, match="a coupling is one of independent, antithetic, stratified; got 'latin'"):
        address("latin", 0)  # type: ignore[arg-type]
    for draw in (-1, 2**24):
        with pytest.raises(ValueError, match=f"got {draw}"):
            address("independent", draw)
