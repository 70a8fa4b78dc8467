"""One network for four domains: the public ResNet-20, fine-tuned on noisy, blurred and dark images of CIFAR-10, merged.

    python experiments/domains/run.py --cifar DATA/cifar-10-batches-bin --network resnet20.safetensors [--seeds 3]

Every expert sees 5,000 training images for two epochs. Of the test images the first 2,000 choose scales and fit a
temperature, with labels, and are what RegMean, Fisher and fresh statistics read, without. The next 4,000 give the
figures, which are means over the domains: the three, and images as they are. Goes on where it stopped.
"""

from __future__ import annotations

import argparse
import copy
import json
import platform
import time
from collections.abc import Mapping
from pathlib import Path
from statistics import fmean, stdev

import torch
from torch import Tensor, nn
from torch.func import functional_call

from pluria.align import refresh
from pluria.core.ensemble import Ensemble, single, stack
from pluria.core.params import Params, params_of
from pluria.merge import Rule, fisher, fisher_information, leafwise, linear, regmean, task_arithmetic, ties, wise_ft
from pluria.pool import fit_temperature, mean_probability
from pluria.sample import moments
from pluria.score import error, nll
from pluria.store import read_checkpoint
from pluria.zoo import Dataset, network, read
from pluria.zoo.fit import fit
from pluria.zoo.shifts import shifted

CHANGES: dict[str, dict[str, float]] = {
    "as they are": {},
    "noise": {"noise": 0.1},
    "blur": {"blur": 1.0},
    "dark": {"contrast": 0.3},
}
SCALES = (0.3, 0.5, 0.7, 1.0)
TRAINED, HELD, TEST, BATCH = 5000, 2000, 4000, 250
Figures = dict[str, float]


class Judge:
    """Answers on all domains; what is fitted is fitted on the held images."""

    def __init__(self, model: nn.Module, images: Dataset) -> None:
        self.model = model
        domains = [change(images, how) for how in CHANGES.values()]
        self.held, self.test = ([one.take(rows) for one in domains] for rows in (slice(HELD), slice(HELD, HELD + TEST)))
        self.inputs = [x for one in self.held[1:] for x in one.inputs.split(BATCH)]

    def fresh(self, params: Params) -> Params:
        """With batch norm's statistics of the domains' held images, measured against those of the public network."""
        return refresh(self.model, single(params), self.inputs, plain=True).params(0)

    def loss(self, params: Params) -> float:
        """Mean error over the domains' held images."""
        return fmean(float(error(log_probs(self.model, params, one), one.targets).mean()) for one in self.held)

    def of(self, each: list[Ensemble]) -> Figures:
        """Of the ensemble that answers in each domain: its mean probability."""
        found: Figures = {}
        for name, ensemble, held, test in zip(CHANGES, each, self.held, self.test, strict=True):
            z, fitted = (answer(self.model, ensemble, one) for one in (test, held))
            tempered = fit_temperature(fitted, held.targets)(z)
            found[f"error, {name}"] = float(error(z, test.targets).mean())
            found[f"nll, {name}"] = float(nll(tempered, test.targets).mean())
        return found | {kind: fmean(found[f"{kind}, {name}"] for name in CHANGES) for kind in ("error", "nll")}

    def one(self, params: Params) -> Figures:
        return self.of([single(params)] * len(CHANGES))


def change(images: Dataset, how: Mapping[str, float]) -> Dataset:
    """A domain, in the public network's scale."""
    made = shifted(images, how) if how else images
    return Dataset(**{**vars(made), "inputs": made.normalise(made.inputs)})


def log_probs(model: nn.Module, params: Params, rows: Dataset) -> Tensor:
    with torch.no_grad():
        return torch.cat([functional_call(model, dict(params), x) for x in rows.inputs.split(BATCH)]).log_softmax(-1)


def answer(model: nn.Module, ensemble: Ensemble, rows: Dataset) -> Tensor:
    return mean_probability(torch.stack([log_probs(model, member, rows) for member in ensemble]), ensemble.weights)


def measure(public: nn.Module, train: Dataset, judge: Judge, seed: int) -> dict[str, Figures]:
    """All arms of one seed: it draws the training images and their order."""
    draw = torch.randperm(len(train.targets), generator=torch.Generator().manual_seed(seed))[:TRAINED]
    few, base = train.take(draw), params_of(public)
    experts = [
        params_of(fit(public, shifted(few, how), epochs=2, batch=100, rate=0.01, seed=seed, optimiser="sgd"))
        for how in list(CHANGES.values())[1:]
    ]
    several = stack(experts)

    def best(rule: type | object, base: Params) -> tuple[Params, float]:
        made = {scale: judge.fresh(leafwise(several, rule(scale), base=base)) for scale in SCALES}  # type: ignore[operator]
        scale = min(made, key=lambda one: judge.loss(made[one]))
        return made[scale], scale

    def merged(rule: Rule) -> Params:
        return judge.fresh(leafwise(several, rule, base=base))

    inputs = [list(one.inputs.split(BATCH)) for one in judge.held[1:]]
    loaded = [load(public, expert) for expert in experts]
    grams = [moments(model, x).second for model, x in zip(loaded, inputs, strict=True)]
    fishers = [fisher_information(model, [x[0]]) for model, x in zip(loaded, inputs, strict=True)]
    found = {
        "the public network": judge.one(base),
        "the public network, fresh statistics": judge.one(judge.fresh(base)),
        "own expert": judge.of([single(base), *map(single, experts)]),
        "ensemble of the three experts": judge.of([several] * len(CHANGES)),
        "mean, statistics averaged": judge.one(leafwise(several, linear())),
        "mean": judge.one(merged(linear())),
        "half way to the public network (WiSE-FT)": judge.one(merged(wise_ft(alpha=0.5))),
        "Fisher": judge.one(merged(fisher(fishers))),
        "RegMean": judge.one(merged(regmean(grams))),
    }
    for name, rule in (
        ("task arithmetic", lambda scale: task_arithmetic(scale=scale)),
        ("TIES, density .2", lambda scale: ties(density=0.2, scale=scale)),
        ("TIES, density 1", lambda scale: ties(density=1.0, scale=scale)),
    ):
        params, scale = best(rule, base)
        found[name] = {**judge.one(params), "scale": scale}
    return found


def load(model: nn.Module, params: Params) -> nn.Module:
    made = copy.deepcopy(model)
    made.load_state_dict(dict(params))
    return made.eval()


def table(seeds: list[dict[str, Figures]]) -> str:
    """Arms by NLL after temperature; ± is the standard deviation over seeds."""
    heads = ["", "error", "NLL, tempered", *(f"error, {name}" for name in CHANGES), "scale"]
    lines = ["| " + " | ".join(heads) + " |", "| --- |" + " ---: |" * (len(heads) - 1)]
    for name in sorted(seeds[0], key=lambda arm: fmean(one[arm]["nll"] for one in seeds)):
        own = [one[name] for one in seeds]

        def cell(key: str, scale: float = 1, digits: int = 3, own: list[Figures] = own) -> str:
            values = [scale * one[key] for one in own]
            return f"{fmean(values):.{digits}f}" + (f" ± {stdev(values):.{digits}f}" if len(values) > 1 else "")

        cells = [name, f"{cell('error', 100, 2)} %", cell("nll")]
        cells += [f"{fmean(100 * one[f'error, {domain}'] for one in own):.2f} %" for domain in CHANGES]
        lines.append("| " + " | ".join([*cells, cell("scale", 1, 2) if "scale" in own[0] else "–"]) + " |")
    return "\n".join(lines)


def main() -> None:
    given = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    given.add_argument("--cifar", required=True)
    given.add_argument("--network", required=True)
    given.add_argument("--seeds", type=int, default=3)
    given.add_argument("--out", type=Path, default=Path(__file__).with_name("figures.json"))
    options = given.parse_args()
    torch.set_num_threads(1)
    norm = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
    public = network("cifar_resnet", depth=20)
    public.load_state_dict(dict(read_checkpoint(options.network).params))
    train, test = (read("cifar10", path=options.cifar, split=split, **norm) for split in ("train", "test"))
    judge = Judge(public.eval(), test)
    found = json.loads(options.out.read_text()) if options.out.exists() else {"seeds": []}
    found |= {"machine": f"{platform.machine()}, torch {torch.__version__}", "date": time.strftime("%Y-%m-%d")}
    for seed in range(len(found["seeds"]), options.seeds):
        found["seeds"].append(measure(public, train, judge, seed))
        options.out.write_text(json.dumps(found, indent=1) + "\n")
        print(f"seed {seed}", flush=True)
    print(table(found["seeds"]))


if __name__ == "__main__":
    main()
