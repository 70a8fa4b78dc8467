"""The prize, further: bits chosen layer by layer, and more members at milder noise, each behind views.

    python experiments/ex-uno-pluria/layers.py [--out out/layers]

Calibration rows alone. Layers: on 1,000 even rows each layer by itself is rounded to INT-4 and INT-5, eight members
with a view each; it takes the format of least NLL after temperature, and the layers join in the order of what they gain
for as long as the NLL falls. Odd rows, with the temperature of the even ones, score the layers so chosen. Members: 18
of them behind 18 views (nine shifts, flipped or not), against the network behind the same 18, temperature and score
crossed over the two halves. Members' logits are averaged throughout. Finished outputs are kept in --out.
"""

from __future__ import annotations

import argparse
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

import pluria
from pluria.core.ensemble import Ensemble
from pluria.core.params import params_of
from pluria.core.rounded import Rounded
from pluria.pool import fit_temperature, mean_logit
from pluria.predict import gather, predict
from pluria.recipe.reading import read_recipe
from pluria.recipe.resolve import data_rows, load_network
from pluria.score import nll, paired_bootstrap
from pluria.zoo.dataset import Dataset
from pluria.zoo.views import view
from search import HERE, VIEWS, crossed

FORMATS = ("int4", "int5")
CHOOSING = 1000
SHIFTS = ("left", "right", "up", "down", "up-left", "up-right", "down-left", "down-right")
WIDE = ("identity", "flip", *SHIFTS, *(f"flip+{shift}" for shift in SHIFTS))


@dataclass(frozen=True)
class Runs:
    """The network, and a folder in which outputs are kept by what they depend on."""

    model: nn.Module
    out: Path

    def outputs(self, formats: Mapping[str, str], rows: Dataset, members: int, views: Sequence[str]) -> Tensor:
        """Logits `[K, N, C]` of members with the given tensors rounded, none for the network itself."""
        seen = hashlib.sha256(rows.inputs.contiguous().numpy().tobytes()).hexdigest()
        said = repr((sorted(formats.items()), seen, members, list(views)))
        file = self.out / f"{hashlib.sha256(said.encode()).hexdigest()[:16]}.safetensors"
        if not file.exists():
            found, _ = gather(
                predict(
                    self.model,
                    self.ensemble(formats, members),
                    rows.batches(250),
                    views=[view(v) for v in views],
                    channels_last=True,
                )
            )
            save_file({"outputs": found}, file)
        return load_file(file)["outputs"].double()

    def ensemble(self, formats: Mapping[str, str], members: int) -> Ensemble:
        if not formats:
            return Ensemble(pluria.single(params_of(self.model)).families, tuple(range(members)))
        return pluria.low_precision(self.model, members=members, format=dict(formats), where=list(formats))


def rounded(model: nn.Module) -> list[str]:
    """Names of the tensors that are rounded by default."""
    return [name for name, family in pluria.low_precision(model).families.items() if isinstance(family, Rounded)]


def fitted(logits: Tensor, y: Tensor) -> float:
    """NLL of the mean logits after temperature, on the rows of the fit."""
    pooled = mean_logit(logits)
    return float(nll(fit_temperature(pooled, y)(pooled), y).mean())


def layer_by_layer(runs: Runs, even: Dataset) -> tuple[dict[str, str], list[str]]:
    """Formats of the layers that lower the NLL of the even rows, and a line of the table for each layer."""
    names = rounded(runs.model)
    nothing = fitted(runs.outputs({}, even, 8, VIEWS), even.targets)
    alone = {
        name: {f: fitted(runs.outputs({name: f}, even, 8, VIEWS), even.targets) - nothing for f in FORMATS}
        for name in names
    }
    lines = [f"| {name} | " + " | ".join(f"{alone[name][f]:+.4f}" for f in FORMATS) + " |" for name in names]
    best = {name: min(FORMATS, key=lambda f: alone[name][f]) for name in names}
    kept: dict[str, str] = {}
    least = nothing
    for name in sorted(names, key=lambda n: alone[n][best[n]]):
        wider = kept | {name: best[name]}
        found = fitted(runs.outputs(wider, even, 8, VIEWS), even.targets) if alone[name][best[name]] < 0 else least
        if found < least:
            kept, least = wider, found
    return kept, lines


def line(name: str, losses: Tensor, control: Tensor) -> str:
    """A row of the table: NLL, and the paired difference from the control."""
    gap = paired_bootstrap(losses, control, seed=0)
    share = gap.estimate / float(control.mean())
    return f"| {name} | {losses.mean():.4f} | {gap.estimate:+.4f} | {gap.low:+.4f} to {gap.high:+.4f} | {share:+.1%} |"


HEAD = "| members | NLL | difference | 95 % interval | share |\n|---|---|---|---|---|"


def chosen_layers(runs: Runs, rows: Dataset) -> None:
    """Prints the choice of layers and its score."""
    even, odd = rows.take(slice(0, 2 * CHOOSING, 2)), rows.take(slice(1, None, 2))
    kept, lines = layer_by_layer(runs, even)
    print(f"Gain of each layer alone, NLL on {len(even)} rows\n\n| layer | INT-4 | INT-5 |\n|---|---|---|")
    print("\n".join(lines))
    said = ", ".join(f"{name} {f}" for name, f in kept.items()) or "none"
    print(f"\nKept together: {said}.\n\nOn the other {len(odd)} rows\n\n{HEAD}")
    losses = []
    for formats in ({}, kept, dict.fromkeys(kept, "int5")):
        fit, score = (mean_logit(runs.outputs(formats, part, 8, VIEWS)) for part in (even, odd))
        losses.append(nll(fit_temperature(fit, even.targets)(score), odd.targets))
    for name, found in zip(("full precision", "layers so chosen", "the same layers at INT-5"), losses, strict=True):
        print(line(name, found, losses[0]))


def more_members(runs: Runs, rows: Dataset) -> None:
    """Prints 18 members behind 18 views."""
    print(f"\nMore members behind 18 views, {len(rows)} rows crossed\n\n{HEAD}")
    control = crossed(mean_logit(runs.outputs({}, rows, 18, WIDE)), rows.targets)
    print(line("full precision, 18 forwards", control, control))
    every = rounded(runs.model)
    for f in ("int5", "int6"):
        found = mean_logit(runs.outputs(dict.fromkeys(every, f), rows, len(WIDE), WIDE))
        print(line(f"{f.upper().replace('INT', 'INT-')} × 18", crossed(found, rows.targets), control))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("out/layers"))
    out = parser.parse_args().out
    out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    recipe = read_recipe(HERE / "one.yaml")
    assert recipe.network is not None
    model, _ = load_network(recipe.network)
    runs, rows = Runs(model, out), data_rows(recipe).calibration
    more_members(runs, rows)
    chosen_layers(runs, rows)


if __name__ == "__main__":
    main()
