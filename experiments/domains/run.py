"""One network for four domains: the public ResNet-20, fine-tuned on noisy, blurred and dark images of CIFAR-10, merged.

    python experiments/domains/run.py --cifar DATA/cifar-10-batches-bin --network resnet20.safetensors

For each seed: every expert sees the same 500 training images for two epochs, changed to its domain. Of 450 test
images, drawn anew, 150 choose scales and fit temperatures, with labels, and refresh batch norm, without; the other
300 give the figures. What is chosen is chosen by the mean error over the domains. Goes on where it stopped.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import fmean

import torch
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from seeds import spread

from pluria.align import refresh
from pluria.core.ensemble import Ensemble, single, stack
from pluria.core.params import Params, params_of
from pluria.merge import Rule, leafwise, linear, model_stock, task_arithmetic, ties, wise_ft
from pluria.pool import fit_temperature, mean_probability
from pluria.predict import gather, predict
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
CHOSEN: dict[str, tuple[tuple[float, ...], Callable[[float], Rule]]] = {
    "task arithmetic": ((0.3, 0.5, 1.0), lambda scale: task_arithmetic(scale=scale)),
    "TIES, density .2": ((0.5, 1.0, 2.0), lambda scale: ties(density=0.2, scale=scale)),
    "WiSE-FT of the mean": ((0.25, 0.5, 0.75), lambda alpha: wise_ft(alpha=alpha)),
}
"""Methods with one number that is chosen on the held images."""

TRAINED, HELD, TEST, BATCH = 500, 150, 300, 250
NORM = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
Figures = dict[str, float]


class Judge:
    """Answers on all domains; what is fitted is fitted on the held images."""

    def __init__(self, model: nn.Module, images: Dataset) -> None:
        self.model = model
        domains = [change(images, how) for how in CHANGES.values()]
        self.held, self.test = ([one.take(rows) for one in domains] for rows in (slice(HELD), slice(HELD, HELD + TEST)))
        self.inputs = [x for one in self.held for x in one.inputs.split(BATCH)]

    def fresh(self, params: Params) -> Params:
        """With batch norm's statistics of the held images of all domains."""
        return refresh(self.model, single(params), self.inputs, plain=True).params(0)

    def loss(self, params: Params) -> float:
        """The mean error over the domains' held images."""
        return fmean(float(error(answer(self.model, single(params), one), one.targets).mean()) for one in self.held)

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
    fast = made.normalise(made.inputs).contiguous(memory_format=torch.channels_last)
    return Dataset(**{**vars(made), "inputs": fast})


def answer(model: nn.Module, ensemble: Ensemble, rows: Dataset) -> Tensor:
    return mean_probability(gather(predict(model, ensemble, rows.inputs.split(BATCH)))[0], ensemble.weights)


def drawn(images: Dataset, count: int, seed: int) -> Dataset:
    order = torch.randperm(len(images.targets), generator=torch.Generator().manual_seed(seed))
    return images.take(order[:count])


def measure(public: nn.Module, train: Dataset, test: Dataset, seed: int) -> dict[str, Figures]:
    """All arms of one seed: it draws the images and their order."""
    few, judge, base = drawn(train, TRAINED, seed), Judge(public, drawn(test, HELD + TEST, seed)), params_of(public)
    experts = [
        params_of(fit(public, shifted(few, how), epochs=2, batch=50, rate=0.005, seed=seed, optimiser="sgd"))
        for how in list(CHANGES.values())[1:]
    ]
    several = stack(experts)
    found = {
        "the public network": judge.one(base),
        "the public network, fresh statistics": judge.one(judge.fresh(base)),
        "own expert": judge.of([single(base), *map(single, experts)]),
        "ensemble of the experts": judge.of([stack(list(map(judge.fresh, experts)))] * len(CHANGES)),
        "mean, statistics averaged": judge.one(leafwise(several, linear())),
        "mean": judge.one(judge.fresh(leafwise(several, linear()))),
        "model stock": judge.one(judge.fresh(leafwise(several, model_stock(), base=base))),
    }
    for name, (numbers, rule) in CHOSEN.items():
        made = {number: judge.fresh(leafwise(several, rule(number), base=base)) for number in numbers}
        number = min(made, key=lambda one: judge.loss(made[one]))
        found[name] = {**judge.one(made[number]), "chosen": number}
    return found


def table(seeds: list[dict[str, Figures]]) -> str:
    """Arms by error; ± is the standard deviation over seeds."""
    heads = ["", "error", "NLL, tempered", *(f"error, {name}" for name in CHANGES), "chosen"]
    lines = ["| " + " | ".join(heads) + " |", "| --- |" + " ---: |" * (len(heads) - 1)]
    for name in sorted(seeds[0], key=lambda arm: fmean(one[arm]["error"] for one in seeds)):
        own = [one[name] for one in seeds]
        chosen = ", ".join(f"{one['chosen']:g}" for one in own if "chosen" in one) or "–"
        cells = [name, f"{spread([one['error'] for one in own], 2, 100)} %", spread([one["nll"] for one in own], 3)]
        cells += [f"{fmean(100 * one[f'error, {domain}'] for one in own):.1f} %" for domain in CHANGES]
        lines.append("| " + " | ".join([*cells, chosen]) + " |")
    return "\n".join(lines)


def main() -> None:
    given = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    given.add_argument("--cifar", required=True)
    given.add_argument("--network", required=True)
    given.add_argument("--seeds", type=int, default=3)
    given.add_argument("--out", type=Path, default=Path(__file__).with_name("figures.json"))
    options = given.parse_args()
    torch.set_num_threads(1)
    public = network("cifar_resnet", depth=20)
    public.load_state_dict(dict(read_checkpoint(options.network).params))
    train, test = (read("cifar10", path=options.cifar, split=split, **NORM) for split in ("train", "test"))
    found = json.loads(options.out.read_text()) if options.out.exists() else {"seeds": [], "seconds": []}
    found |= {"machine": f"{platform.machine()}, torch {torch.__version__}", "date": time.strftime("%Y-%m-%d")}
    for seed in range(len(found["seeds"]), options.seeds):
        before = time.process_time()
        found["seeds"].append(measure(public.eval(), train, test, seed))
        found["seconds"].append(round(time.process_time() - before))
        options.out.write_text(json.dumps(found, indent=1) + "\n")
        print(f"seed {seed}: {found['seconds'][-1]} s of one core", flush=True)
    print(table(found["seeds"]))


if __name__ == "__main__":
    main()
