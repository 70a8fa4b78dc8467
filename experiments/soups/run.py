"""Soups, task vectors and sparse soups on digits, over seeds.

    python experiments/soups/run.py [--seeds 12] [--sparse-seeds 6] [--out experiments/soups/figures.json]

Writes the figures and prints the tables of README.md. Nothing is chosen on the rows that give the figures.
"""

from __future__ import annotations

import argparse
import json
import platform
from collections.abc import Callable
from pathlib import Path

import soups
import sparse
import tasks
import torch
from measure import Figures, Rows
from tables import tables

from pluria.zoo import read

Part = Callable[[Rows, int], dict[str, Figures]]


def over_seeds(part: Part, rows: Rows, seeds: int) -> dict[str, list[Figures]]:
    """Each arm's figures, seed after seed."""
    found = [part(rows, seed) for seed in range(seeds)]
    return {name: [one[name] for one in found] for name in found[0]}


def main() -> None:
    given = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    given.add_argument("--seeds", type=int, default=12)
    given.add_argument("--sparse-seeds", type=int, default=6)
    given.add_argument("--out", type=Path, default=Path(__file__).with_name("figures.json"))
    options = given.parse_args()
    torch.set_num_threads(1)
    data = read("digits", split="all")
    rows = Rows(data.normalise(data.inputs).flatten(1), data.targets)
    found = {
        "machine": f"{platform.machine()}, torch {torch.__version__}",
        "local": over_seeds(lambda rows, seed: soups.run(rows, "local", seed), rows, options.seeds),
        "star": over_seeds(lambda rows, seed: soups.run(rows, "star", seed), rows, options.seeds),
        "tasks": over_seeds(tasks.run, rows, options.seeds),
        "sparse": over_seeds(sparse.run, rows, options.sparse_seeds),
        "rank correlation": [soups.rank_correlation(rows, seed) for seed in range(options.seeds)],
    }
    options.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print(tables(found))


if __name__ == "__main__":
    main()
