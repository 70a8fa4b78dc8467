"""Couplings over many seeds: the error of the mean, against a random permutation of 16 strata, and on a network."""

import math

import pytest
import torch

from pluria.numbers.format import number_format
from pluria.numbers.grid import Grid, fit_grid, layout
from pluria.numbers.key import Key
from pluria.numbers.rounding import Address, round_stochastic, variance
from pluria.pool import mean_probability
from pluria.predict import gather, predict
from pluria.sample import low_precision
from pluria.score import nll
from pluria.zoo import network, read
from pluria.zoo.fit import fit

pytestmark = pytest.mark.study
WEIGHTS = 200_000


def mean_square_error(coupling: str, members: int, seed: int) -> float:
    """Error of the mean of the first members' weights, in units of s^2; v uniform, far from the grid's ends."""
    model = {"weight": torch.rand(1, WEIGHTS, generator=torch.Generator().manual_seed(seed)) * 2 - 1}
    ensemble = low_precision(model, format="int8", members=members, coupling=coupling, key=seed)
    total = torch.stack([params["weight"].double() for params in ensemble]).mean(0) - model["weight"].double()
    return float((total * 127 / float(model["weight"].abs().max())).square().mean())


def permuted(members: int, seed: int) -> float:
    """The same error with u_m = (u_0 + pi(m) / 16) mod 1 and a random permutation pi for each weight."""
    generator = torch.Generator().manual_seed(seed)
    f, u0 = torch.rand(WEIGHTS, generator=generator), torch.rand(WEIGHTS, generator=generator)
    order = torch.rand(WEIGHTS, 16, generator=generator).argsort(-1)[:, :members]
    up = ((u0[:, None] + order / 16) % 1 < f[:, None]).double()
    return float((up.mean(-1) - f).square().mean())


@pytest.mark.parametrize("members", [2, 4, 8, 16])
def test_the_error_of_the_mean_follows_its_law_over_seeds(members: int):
    laws = {"independent": 1 / (6 * members), "antithetic": 1 / (12 * members), "stratified": 1 / (6 * members**2)}
    for coupling, law in laws.items():
        errors = [mean_square_error(coupling, members, seed) for seed in range(10)]
        print(f"{coupling:12} error of the mean of {members}: {sum(errors) / 10:.6f}, law {law:.6f}")
        assert sum(errors) / 10 == pytest.approx(law, rel=0.03), coupling


@pytest.mark.parametrize("members", [2, 3, 4, 5, 6, 8, 10, 12])
def test_digital_shifts_beat_a_random_permutation_of_strata_at_every_size_below_16(members: int):
    ours = sum(mean_square_error("stratified", members, seed) for seed in range(5)) / 5
    theirs = sum(permuted(members, seed) for seed in range(5)) / 5
    print(f"{members} members: digital shifts {ours:.6f}, a random permutation {theirs:.6f}")
    assert ours < theirs


def spacing(w: torch.Tensor, grid: Grid) -> torch.Tensor:
    """Distance of the two neighbours of each weight, in units of the scale."""
    low, high = grid.format.neighbours(w / grid.scale, grid.zero)
    return (high - low).double()


def test_every_format_is_unbiased_over_many_members():
    w = torch.randn(16, 64, generator=torch.Generator().manual_seed(0))
    draws = 4000
    for name in ("int2", "int4-asymmetric", "fp8-e4m3", "fp6-e3m2", "fp4-e2m1", "nf4", "bf16", "fp16"):
        grid = fit_grid(w, number_format(name), layout=layout(w.shape))
        total = torch.zeros_like(w, dtype=torch.float64)
        for draw in range(draws):
            total += round_stochastic(w, grid, Address(Key(1), 7, draw, 0), torch.empty_like(w))
        law = variance(w, grid).double()
        # A weight that moves less than a few times in all draws has no normal law yet.
        often = law * draws > 20 * (grid.scale.double() * spacing(w, grid)).square()
        z = (total / draws - w.double())[often] / (law[often] / draws).sqrt()
        print(f"{name:16} largest z {float(z.abs().max()):.2f}, mean z {float(z.mean()):+.4f} of {len(z)}")
        assert float(z.abs().max()) < 5.5, name
        assert float(z.mean().abs()) < 5 / math.sqrt(len(z)), name
        assert len(z) > 0.9 * w.numel()


def test_stratified_members_are_no_worse_than_independent_ones_on_a_network():
    data = read("digits", split="train"), read("digits", split="test")
    model = fit(network("small_cnn"), data[0], epochs=20, batch=64, rate=0.003, seed=0)
    gaps = []
    for seed in range(30):
        losses = []
        for coupling in ("stratified", "independent"):
            ensemble = low_precision(model, format="int3", members=8, coupling=coupling, key=seed)
            outputs, y = gather(predict(model, ensemble, data[1].batches(400)))
            losses.append(float(nll(mean_probability(outputs.double()), y).mean()))
        gaps.append(losses[0] - losses[1])
    mean, spread = torch.tensor(gaps).mean(), torch.tensor(gaps).std()
    print(f"NLL stratified - independent: {mean:.4f} +- {spread / math.sqrt(len(gaps)):.4f}")
    assert mean < 2 * spread / math.sqrt(len(gaps))
