"""Soup, ensemble, or part of each, for public MNIST networks: measured, and predicted from derivatives at the soup.

python -m experiments.rebasin.gap --mnist DATA/mnist --models DATA/mnist_models
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path

from experiments.rebasin.run import ConvNet

from pluria.check import Choice, soup_gap
from pluria.core.ensemble import stack
from pluria.store import read_checkpoint
from pluria.zoo import read

TOGETHER = {
    "baseline and its fine-tune": ("baseline_epoch_9", "oe_tune_epoch_4"),
    "three trained apart from one start": ("baseline_epoch_9", "calib_baseline_epoch_9", "oe_scratch_epoch_9"),
}
HEADS = "fc1.*", "fc2.*"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mnist", type=Path, required=True)
    parser.add_argument("--models", type=Path, required=True)
    given = parser.parse_args()
    batches = list(read("idx", path=given.mnist, split="test").take(slice(5_000, 10_000)).batches(500))
    print("\n".join(table_head()))
    for name, files in TOGETHER.items():
        members = [read_checkpoint(given.models / f"oe_{file}.safetensors").params for file in files]
        print("\n".join(table(name, soup_gap(ConvNet().eval(), stack(members), batches, heads=HEADS))))


def table_head() -> Iterator[str]:
    yield "| networks | answered by | NLL · 1000 | soup less it | predicted | curvature | disagreement | probability |"
    yield "| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: |"


def table(name: str, choices: Sequence[Choice]) -> Iterator[str]:
    """A row for each way to answer, in thousandths."""
    for row in choices:
        cells = [f"{1000 * row.loss:.2f}", f"{1000 * row.gap:+.2f}"]
        if row.terms is not None and row.predicted is not None:
            parts = [row.predicted, row.terms.curvature, row.terms.disagreement]
            parts += [row.terms.extra] if "probability" in row.what else []
            cells += [f"{1000 * part:+.2f}" for part in parts]
        cells += [""] * (6 - len(cells))
        yield f"| {name} | {row.what} | " + " | ".join(cells) + " |"


if __name__ == "__main__":
    main()
