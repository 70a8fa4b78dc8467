"""What is reliably true of training methods on small tasks, over paired seeds; the experiments have the figures.

Nothing is asserted that seeds do not carry: averages of SWAG, anti-random masks, EnsLoss and late phases are parity.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import fmean
from types import ModuleType
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pluria.predict import gather, predict
from pluria.score import extrapolate, fit_power_law
from pluria.train import diversity_loss, ens_loss, restarted
from pluria.train import together as joint

EXPERIMENTS = Path(__file__).resolve().parents[2] / "experiments"
pytestmark = pytest.mark.study


def imported(experiment: str, *names: str) -> list[ModuleType]:
    """Modules of an experiment's folder, as its scripts import them."""
    folder = str(EXPERIMENTS / experiment)
    sys.path.insert(0, folder)
    try:
        for name in names:
            sys.modules.pop(name, None)
        return [importlib.import_module(name) for name in names]
    finally:
        sys.path.remove(folder)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def lower(gaps: list[float], *, by: float = 0.0, what: str = "") -> bool:
    """Whether paired differences are below `-by` in the mean by three standard errors; both are printed."""
    values = torch.tensor(gaps, dtype=torch.float64)
    mean, error = float(values.mean()), float(values.std()) / len(values) ** 0.5
    print(f"{what:60} {mean:+.4f} ± {error:.4f} over {len(values)}")
    return mean + 3 * error < -by


def test_a_difference_that_is_chance_is_not_lower() -> None:
    assert lower([-1.0, -1.1, -0.9, -1.0])
    assert not lower([-1.0, 1.1, -0.9, 1.0])


def test_cycles_leave_the_start_and_soups_need_one_basin() -> None:
    (transfer,) = imported("transfer", "run")
    seeds: list[dict[str, Any]] = [transfer.one(seed) for seed in range(12)]

    def gaps(one: str, other: str, what: str, key: str = "nll_after") -> list[float]:
        return [s[one][what][key] - s[other][what][key] for s in seeds]

    assert lower(gaps("SSE, rate × 4", "local", "ensemble"), what="SSE, rate × 4 − local")
    assert lower(gaps("StarSSE, rate × 4", "local", "ensemble"), what="StarSSE, rate × 4 − local")
    assert lower(gaps("local", "local, other heads", "soup"), what="soup: local − local, other heads")
    assert fmean(s["global"]["soup"]["error"] for s in seeds) > 0.15


def test_a_bend_goes_around_the_barrier_and_statistics_must_follow() -> None:
    imported("ladder", "setting")
    (paths,) = imported("mode-connectivity", "run")
    seeds: list[dict[str, Any]] = [paths.one(seed) for seed in range(8)]

    def mean(shape: str, key: str, of: Callable[[list[float]], float] = max) -> float:
        return fmean(of(found[shape][key]) for found in seeds)

    ends = mean("line", "test_error", lambda row: (row[0] + row[-1]) / 2)
    worst = {shape: mean(shape, "test_error") for shape in ("line", "bezier", "polygon")}
    stale = mean("bezier", "stale_error")
    print(f"largest error: {worst}; ends {ends:.4f}; the Bezier curve with stale statistics {stale:.4f}")
    assert worst["line"] >= 2 * ends
    assert worst["bezier"] <= ends + 0.01
    assert worst["polygon"] <= ends + 0.01
    assert stale >= 2 * worst["bezier"]
    for found in seeds:
        heights = {
            shape: paths.barrier(torch.tensor(found[shape]["train_nll"], dtype=torch.float64)) for shape in found
        }
        assert heights["bezier"] < 0.1 * heights["line"]


def test_the_ladder_where_seeds_carry_it() -> None:
    setting, methods = imported("ladder", "setting", "methods")
    (run,) = imported("ladder", "run")
    names = {
        "single", "deep ensemble × 4", "subnetworks × 4", "MC dropout × 20", "late phase × 5 averaged",
        "late phase × 5 averaged, from the start", "late phase × 5 averaged, rank 1, from the start",
        "late phase × 5, rank 1, from the start", "distilled from × 4", "cyclical SGHMC, T = 1",
        "cyclical SGHMC, T = 1/N", "cyclical SGLD, T = 1", "cyclical SGLD, T = 1/N", "prune and tune × 6, 3 epochs",
        "prune and tune × 6, 30 epochs",
    }  # fmt: skip
    splits = [setting.split(seed) for seed in range(12)]
    rows = {name: [run.measure(methods.LADDER[name](data), data)["nll"] for data in splits] for name in names}

    def gaps(one: str, other: str) -> list[float]:
        return [a - b for a, b in zip(rows[one], rows[other], strict=True)]

    for one, other in (
        ("deep ensemble × 4", "single"),
        ("subnetworks × 4", "MC dropout × 20"),
        ("distilled from × 4", "single"),
        ("cyclical SGHMC, T = 1/N", "cyclical SGHMC, T = 1"),
        ("cyclical SGLD, T = 1/N", "cyclical SGLD, T = 1"),
        ("prune and tune × 6, 30 epochs", "prune and tune × 6, 3 epochs"),
    ):
        assert lower(gaps(one, other), what=f"{one} − {other}")
    assert fmean(gaps("distilled from × 4", "single")) < 0.5 * fmean(gaps("deep ensemble × 4", "single"))
    late, whole = "late phase × 5 averaged, rank 1, from the start", "late phase × 5, rank 1, from the start"
    assert lower(gaps("single", late), what=f"single − {late}")
    assert fmean(gaps(late, "single")) > 0.03
    assert lower(gaps(whole, late), what=f"{whole} − {late}")
    lower(gaps("single", "late phase × 5 averaged, from the start"), what="single − the same of norms and last layers")
    assert fmean(gaps("late phase × 5 averaged, from the start", "single")) > 0
    assert abs(fmean(gaps("late phase × 5 averaged", "single"))) < 0.005


def test_the_middle_of_a_line_is_better_than_its_ends_which_a_penalty_keeps_apart() -> None:
    setting, methods = imported("ladder", "setting", "methods")
    gaps, cosines = [], dict[float, list[float]]({0.0: [], 1.0: []})
    for data in (setting.split(seed) for seed in range(8)):
        x, y = data.figures
        for beta, found in cosines.items():
            model, ensemble, _ = methods.line(data, beta, 3)
            ends = [torch.cat([v.flatten() for v in ensemble.params(m).values() if v.ndim > 1]) for m in (0, 2)]
            found.append(float(F.cosine_similarity(*ends, dim=0)) ** 2)
            outputs, _ = gather(predict(model, ensemble, [x]))
            nll = [float(F.cross_entropy(each, y)) for each in outputs]
            gaps += [nll[1] - (nll[0] + nll[2]) / 2] if beta else []
    print({beta: fmean(found) for beta, found in cosines.items()})
    assert max(cosines[1.0]) < 0.01 < 0.1 < fmean(cosines[0.0])
    assert lower(gaps, by=0.005, what="a line's middle − its ends")


def parity(random: bool, seed: int) -> float:
    """Error on clean rows of a network that tells odd digits from even ones, of which a fifth had the wrong label.

    The published rate and its cosine: at a constant one the noise of the losses stays.
    """
    (setting,) = imported("ladder", "setting")
    data, step = setting.split(seed), iter(range(10**6))
    wrong = torch.rand(len(data.y), generator=torch.Generator().manual_seed(seed)) < 0.2
    data = setting.Split(seed, data.x, (data.y % 2) ^ wrong.long(), data.calibration, data.figures)
    model = nn.Sequential(setting.network(seed)[:-1], restarted(nn.Linear(64, 1), seed))

    def loss(network: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        output, y = network(batch[0]).squeeze(1), batch[1]
        plain = F.binary_cross_entropy_with_logits(output, y.float())
        return ens_loss(output, y, key=seed, step=next(step)) if random else plain

    setting.run(model, data, loss=loss, optimizer=setting.descent(model, 0.001))
    x, y = data.figures
    with torch.no_grad():
        return float(((model(x).squeeze(1) > 0).long() != y % 2).float().mean())


def test_random_losses_are_no_worse_than_cross_entropy_under_wrong_labels() -> None:
    gaps = [parity(True, seed) - parity(False, seed) for seed in range(8)]
    lower(gaps, what="error: EnsLoss − cross-entropy, a fifth of labels wrong")
    assert fmean(gaps) < 0.01


def together(width: int, gamma: float, seed: int) -> tuple[float, float]:
    """NLL and error of four small networks trained on the diversity objective, without norms."""
    (setting,) = imported("ladder", "setting")
    data = setting.split(seed)
    population = joint([setting.network(10 * seed + m, width=width, norm=False) for m in range(4)])
    stepper = torch.optim.SGD([p for p in population.parameters() if p.requires_grad], 0.1, momentum=0.9)
    for number in range(60):
        for x, y in data.epoch(number):
            stepper.zero_grad()
            torch.autograd.backward(diversity_loss(population(x), y, gamma=gamma))
            stepper.step()
    x, y = data.figures
    with torch.no_grad():
        mean = population(x).softmax(-1).mean(0)
    return float(F.nll_loss(mean.log(), y)), float((mean.argmax(-1) != y).float().mean())


def test_diversity_helps_small_members_and_hurts_large_ones() -> None:
    seeds = range(8)
    small = {gamma: [together(4, gamma, seed) for seed in seeds] for gamma in (-1.0, 0.0, 0.5)}
    large = {gamma: [together(128, gamma, seed) for seed in seeds] for gamma in (-1.0, 0.0, 1.0)}
    nll = {name: [row[0] for row in rows] for name, rows in small.items()}
    assert fmean(nll[-1.0]) - fmean(nll[0.0]) > 0.05
    assert fmean(row[1] for row in small[0.5]) < fmean(row[1] for row in small[0.0])
    wide = {name: [row[0] for row in rows] for name, rows in large.items()}
    print(
        {f"width {w}, gamma {g}": round(fmean(v), 4) for w, found in ((4, nll), (128, wide)) for g, v in found.items()}
    )
    assert abs(fmean(wide[-1.0]) - fmean(wide[0.0])) < 0.002
    assert fmean(wide[1.0]) - fmean(wide[0.0]) > 0.01


def test_six_of_many_members_tell_the_limit_of_all() -> None:
    setting, methods = imported("ladder", "setting", "methods")
    data = setting.split(0)
    x = torch.cat([data.calibration[0], data.figures[0]])
    y = torch.cat([data.calibration[1], data.figures[1]])
    outputs = []
    for member in range(64):
        model = methods.base(data, member).eval()
        with torch.no_grad():
            outputs.append(model(x))
    found = extrapolate(torch.stack(outputs), y, draws=2)
    few = fit_power_law(torch.arange(1, 7), torch.tensor(found.losses[:6]))
    whole = found.losses[-1]
    print(f"exponent {found.law.exponents[0]:.3f}, limit {found.law.limit:.4f}; 64 members have {whole:.4f}")
    print(f"from sizes up to 6: exponent {few.exponents[0]:.3f}, limit {few.limit:.4f}")
    assert 0.8 < found.law.exponents[0] < 1.2
    assert few.limit == pytest.approx(whole, rel=0.04)
