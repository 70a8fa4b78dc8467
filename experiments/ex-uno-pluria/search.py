"""The prize: what of one checkpoint may beat its own views at equal forwards? A search on the calibration half alone.

    python experiments/ex-uno-pluria/search.py [--out out/search]

Eight members see eight views, one each, so every candidate costs eight forwards. The temperature is fitted on one half
of the calibration rows and scored on the other, and the other way round; members are pooled by their probabilities, by
their logits, and by a log-linear pool whose exponents are fitted with it. Outputs of finished candidates are kept in
--out.
"""

from __future__ import annotations

import argparse
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

import pluria
from pluria.core.ensemble import Ensemble
from pluria.core.params import params_of
from pluria.pool import fit_log_linear, fit_temperature, mean_logit, mean_probability
from pluria.predict import gather, predict
from pluria.recipe.reading import read_recipe
from pluria.recipe.resolve import data_rows, load_network
from pluria.sample.moments import Moments, moments
from pluria.score import nll, paired_bootstrap
from pluria.zoo.dataset import Dataset
from pluria.zoo.views import view

HERE = Path(__file__).parent
VIEWS = ("identity", "flip", "left", "right", "up", "down", "flip+left", "flip+right")
EARLY, LATE = ["conv1.weight", "layer1.*.weight"], ["layer3.*.weight", "linear.weight"]
FALLING = {"conv1.*": "int8", "layer1.*": "int6", "layer2.*": "int5", "*": "int4"}
RISING = {"conv1.*": "int4", "layer1.*": "int4", "layer2.*": "int5", "*": "int6"}


@dataclass(frozen=True)
class Candidate:
    """How eight members are drawn: `sampler` is "single" for the network itself, "low_precision" or "compensated"."""

    sampler: str
    options: Mapping[str, Any]
    refreshed: bool = False

    def draw(self, model: nn.Module, second: Moments, inputs: list[Tensor]) -> Ensemble:
        """Its members."""
        if self.sampler == "single":
            return Ensemble(pluria.single(params_of(model)).families, tuple(range(8)))
        if self.sampler == "compensated":
            ensemble = pluria.compensated(model, second, members=8, **self.options)
        else:
            ensemble = pluria.low_precision(model, members=8, **self.options)
        return pluria.refresh(model, ensemble, inputs) if self.refreshed else ensemble


def plain(refreshed: bool = False, **options: Any) -> Candidate:
    """Stochastic rounding."""
    return Candidate("low_precision", options, refreshed)


def fed_back(refreshed: bool = False, **options: Any) -> Candidate:
    """Stochastic rounding with error feedback."""
    return Candidate("compensated", options, refreshed)


CANDIDATES = {
    "full precision": Candidate("single", {}),
    "INT-6": plain(format="int6"),
    "INT-5": plain(format="int5"),
    "INT-5 refreshed": plain(format="int5", refreshed=True),
    "INT-4": plain(format="int4"),
    "INT-4 refreshed": plain(format="int4", refreshed=True),
    "INT-3 refreshed": plain(format="int3", refreshed=True),
    "INT-5 compensated refreshed": fed_back(format="int5", refreshed=True),
    "INT-4 compensated": fed_back(format="int4"),
    "INT-4 compensated refreshed": fed_back(format="int4", refreshed=True),
    "INT-3 compensated refreshed": fed_back(format="int3", refreshed=True),
    "INT-4 early layers only": plain(format="int4", where=EARLY),
    "INT-4 late layers only": plain(format="int4", where=LATE),
    "INT-3 late layers only, compensated": fed_back(format="int3", where=LATE),
    "bits falling with depth, compensated": fed_back(format=FALLING),
    "bits rising with depth, compensated": fed_back(format=RISING),
}


def kept(candidate: Candidate, rows: Dataset, out: Path) -> Path:
    """The file of a candidate's outputs, named by how it is drawn and by the rows and views it answers."""
    seen = hashlib.sha256(rows.inputs.contiguous().numpy().tobytes()).hexdigest()
    return out / f"{hashlib.sha256(repr((candidate, seen, VIEWS)).encode()).hexdigest()[:16]}.safetensors"


def outputs(candidate: Candidate, model: nn.Module, rows: Dataset, second: Moments, out: Path) -> Tensor:
    """Logits `[8, N, C]` of a candidate, from the file of an earlier run where there is one."""
    file = kept(candidate, rows, out)
    if not file.exists():
        ensemble = candidate.draw(model, second, [x for x, _ in rows.take(slice(0, 1000)).batches(250)])
        found, _ = gather(
            predict(model, ensemble, rows.batches(250), views=[view(v) for v in VIEWS], channels_last=True)
        )
        save_file({"outputs": found}, file)
    return load_file(file)["outputs"].double()


POOLS = {"probabilities": mean_probability, "logits": mean_logit}


def crossed(pooled: Tensor, y: Tensor) -> Tensor:
    """NLL `[N]` of a pooled prediction, each half with the temperature of the other."""
    found = torch.empty(len(y), dtype=torch.float64)
    even = torch.arange(len(y)) % 2 == 0
    for fit in (even, ~even):
        temperature = fit_temperature(pooled[fit], y[fit])
        found[~fit] = nll(temperature(pooled[~fit]), y[~fit])
    return found


def log_linear(logits: Tensor, y: Tensor) -> Tensor:
    """NLL `[N]` of the log-linear pool, each half with the exponents of the other."""
    members, found = logits.log_softmax(-1), torch.empty(len(y), dtype=torch.float64)
    even = torch.arange(len(y)) % 2 == 0
    for fit in (even, ~even):
        found[~fit] = nll(fit_log_linear(members[:, fit], y[fit])(members[:, ~fit]), y[~fit])
    return found


def greedy(pool: Tensor, y: Tensor, size: int = 8) -> list[int]:
    """Members chosen one by one, again where it helps, for the least NLL of their mean logits after temperature."""
    chosen: list[int] = []
    for _ in range(size):
        losses = []
        for one in range(len(pool)):
            pooled = mean_logit(pool[[*chosen, one]])
            losses.append(float(nll(fit_temperature(pooled, y)(pooled), y).mean()))
        chosen.append(int(torch.tensor(losses).argmin()))
    return chosen


def selected(every: Tensor, y: Tensor) -> Tensor:
    """NLL `[N]` of eight members chosen on one half, with their temperature there, on the other half."""
    found = torch.empty(len(y), dtype=torch.float64)
    even = torch.arange(len(y)) % 2 == 0
    for fit in (even, ~even):
        chosen = every[greedy(every[:, fit], y[fit])]
        temperature = fit_temperature(mean_logit(chosen[:, fit]), y[fit])
        found[~fit] = nll(temperature(mean_logit(chosen[:, ~fit])), y[~fit])
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("out/search"))
    out = parser.parse_args().out
    out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    recipe = read_recipe(HERE / "one.yaml")
    rows = data_rows(recipe).calibration
    assert recipe.network is not None
    model, _ = load_network(recipe.network)
    second = moments(model, [x for x, _ in rows.take(slice(0, 1000)).batches(250)])
    held = {name: outputs(one, model, rows, second, out) for name, one in CANDIDATES.items()}
    found = {
        (name, pool): crossed(pooled(logits), rows.targets)
        for name, logits in held.items()
        for pool, pooled in POOLS.items()
    }
    found |= {(name, "log-linear"): log_linear(logits, rows.targets) for name, logits in held.items()}
    chosen = selected(torch.cat(list(held.values())), rows.targets)
    found["eight of all of these, chosen greedily", "logits"] = chosen
    print(
        f"{len(rows)} calibration rows, eight members with a view each; NLL after temperature, and against the control"
    )
    print("with the same pool\n\n| members | pool | NLL | difference | 95 % interval |\n|---|---|---|---|---|")
    for (name, pool), losses in found.items():
        gap = paired_bootstrap(losses, found["full precision", pool], seed=0)
        said = f"{losses.mean():.4f} | {gap.estimate:+.4f} | {gap.low:+.4f} to {gap.high:+.4f}"
        print(f"| {name} | {pool} | {said} |")


if __name__ == "__main__":
    main()
