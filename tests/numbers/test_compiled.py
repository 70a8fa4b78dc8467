"""The compiled loops, the same lines as plain Python, and the torch reference, on cases sharp to the last bit."""

from types import ModuleType

import numba
import numpy as np
import pytest
import torch

from pluria.numbers import compiled, kernel
from pluria.numbers.format import FORMATS
from pluria.numbers.grid import Grid, layout
from pluria.numbers.key import ROUNDING, Key
from pluria.numbers.philox import uniforms, words
from pluria.numbers.rounding import Address, round_stochastic

NAMES = sorted(FORMATS)
BOTH = pytest.mark.parametrize("loops", ["compiled", "interpreted"], indirect=True)
FORMS = pytest.mark.parametrize("loops", ["compiled", "interpreted", "torch"], indirect=True)


@FORMS
@pytest.mark.usefixtures("loops")
@pytest.mark.parametrize(("name", "gap"), [("int4", 1.0), ("fp4-e2m1", 0.5)])
def test_up_means_strictly_below_to_the_last_bit(name: str, gap: float) -> None:
    """A weight whose fraction equals its uniform goes down; with one more unit in the last place it goes up."""
    u = uniforms(words(Key(9), tensor=1, group=2, stream=ROUNDING, start=0, stop=400)).view(1, -1)
    grid = Grid(FORMATS[name], layout((1, 400)), 400, torch.ones(1, 1))
    place = Address(Key(9), 1, 2, 0)
    assert not bool(round_stochastic(u * gap, grid, place, torch.empty(1, 400)).any())
    more = torch.nextafter(u, torch.ones(())) * gap
    assert torch.equal(round_stochastic(more, grid, place, torch.empty(1, 400)), torch.full((1, 400), gap))


@FORMS
@pytest.mark.usefixtures("loops")
def test_up_means_strictly_below_between_the_levels_of_nf4() -> None:
    u = uniforms(words(Key(9), tensor=1, group=2, stream=ROUNDING, start=0, stop=400)).view(1, -1)
    gap = FORMATS["nf4"].decode(torch.tensor(8), None)
    weight = u * gap
    ties = weight / gap == u
    assert int(ties.sum()) > 100
    grid = Grid(FORMATS["nf4"], layout((1, 400)), 400, torch.ones(1, 1))
    rounded = round_stochastic(weight, grid, Address(Key(9), 1, 2, 0), torch.empty(1, 400))
    assert not bool(rounded[ties].any())


@FORMS
@pytest.mark.usefixtures("loops")
@pytest.mark.parametrize("name", NAMES)
def test_a_weight_on_the_grid_stays_even_at_uniform_zero(name: str) -> None:
    mask = int(words(Key(9), tensor=1, group=2, stream=ROUNDING, start=0, stop=1)) >> 8
    code = FORMATS[name].encode(torch.zeros(1, 1), torch.zeros(1, 1)) + 1
    weight = FORMATS[name].decode(code, torch.zeros(1, 1))
    zero = torch.zeros(1, 1) if name.endswith("asymmetric") else None
    grid = Grid(FORMATS[name], layout((1, 1)), 1, torch.ones(1, 1), zero)
    assert float(weight) > 0
    assert torch.equal(round_stochastic(weight, grid, Address(Key(9), 1, 2, mask), torch.empty(1, 1)), weight)


@BOTH
@pytest.mark.usefixtures("loops")
def test_spread_says_how_far_one_scale_reaches() -> None:
    loops: ModuleType | None = kernel._loops()
    assert loops is not None
    s, z, scale = np.zeros(64, np.float32), np.zeros(64, np.float32), np.arange(4, dtype=np.float32)
    rows = np.array([1, 2, 40, 20, 2, 1], np.int64)  # two channels of 40 inputs in groups of 20
    assert loops.spread(s, z, scale, scale, rows, 40, 20) == 60
    assert s[:20].tolist() == [2.0] * 20
    assert loops.spread(s, z, scale, scale, rows, 30, 8) == 40
    assert loops.spread(s, z, scale, scale, rows, 30, 20) == 30  # two runs: nothing is known beyond them
    assert s[:20].tolist() == [1.0] * 10 + [2.0] * 10


def test_loops_compile_where_no_cache_can_be_written(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: object) -> None:
        raise RuntimeError("cannot cache function: no locator available")

    monkeypatch.setattr(numba.core.dispatcher.Dispatcher, "enable_caching", refuse)
    double = compiled.compiled(lambda x: x + x)
    assert double(2) == 4
