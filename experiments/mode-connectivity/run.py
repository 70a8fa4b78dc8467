"""Are two networks joined by a path of low loss? Straight lines, Bezier curves and polygons with one bend, over seeds.

    python experiments/mode-connectivity/run.py [--seeds 8] [--out experiments/mode-connectivity/figures.json]

Uses the setting of experiments/ladder. Every point is judged with statistics of batch norm of its own, and without.
Prints the table of README.md.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE.parent), str(HERE.parent / "ladder")]
from seeds import grow, spread  # noqa: E402
from setting import DECAY, MOMENTUM, RATE, Batch, Split, network, refreshed, run, split  # noqa: E402

from pluria.core.ensemble import Ensemble  # noqa: E402
from pluria.core.params import params_of  # noqa: E402
from pluria.predict import gather, predict  # noqa: E402
from pluria.score import error, nll  # noqa: E402
from pluria.train import Span, along, barrier, curve  # noqa: E402

POINTS = 21
T = torch.linspace(0, 1, POINTS)


def learned(ends: list[nn.Module], data: Split, shape: str) -> Span:
    """A curve with one bend after as many epochs as a network has; decay is on what is evaluated."""
    span = curve(ends[0], [params_of(end) for end in ends])
    stepper = torch.optim.SGD([p for p in span.parameters() if p.requires_grad], RATE, momentum=MOMENTUM)
    generator = torch.Generator().manual_seed(data.seed)

    def loss(span: nn.Module, batch: Batch) -> Tensor:
        shares = along(torch.rand((), generator=generator), 3, shape=shape)  # type: ignore[arg-type]
        return F.cross_entropy(span(batch[0], shares=shares), batch[1]) + 0.5 * DECAY * span.norm(shares.float())  # type: ignore[operator]

    run(span, data, optimizer=stepper, loss=loss)
    return span


def judged(model: nn.Module, ensemble: Ensemble, batch: tuple[Tensor, Tensor]) -> tuple[list[float], list[float]]:
    """NLL and error of every point."""
    outputs, y = gather(predict(model, ensemble, [batch]))
    assert y is not None
    rows = [outputs[i].log_softmax(-1) for i in range(len(outputs))]
    return [float(nll(row, y).mean()) for row in rows], [float(error(row, y).mean()) for row in rows]


def one(seed: int) -> dict[str, Any]:
    """All paths between the two networks of a seed."""
    data = split(seed)
    ends = [network(100 * seed + member) for member in (0, 1)]
    for member, end in enumerate(ends):
        run(end, data, member=member)
    found: dict[str, Any] = {}
    for shape in ("line", "bezier", "polygon"):
        if shape == "line":
            span, shares = curve(ends[0], [params_of(end) for end in ends]), torch.stack([1 - T, 0 * T, T], 1).double()
        else:
            span, shares = learned(ends, data, shape), along(T, 3, shape=shape)  # type: ignore[arg-type]
        stale = span.ensemble(shares)
        path = refreshed(ends[0], stale, data)
        train_nll, _ = judged(ends[0], path, (data.x, data.y))
        test_nll, test_error = judged(ends[0], path, data.figures)
        found[shape] = {
            "train_nll": train_nll, "test_nll": test_nll, "test_error": test_error,
            "stale_error": judged(ends[0], stale, data.figures)[1],
        }  # fmt: skip
    return found


def table(found: dict[str, Any]) -> str:
    lines = [
        f"{found['machine']}, {found['date']}, {len(found['seeds'])} seeds",
        "",
        "| path | barrier of training NLL | largest training NLL | largest test error | its ends | "
        "largest, stale norms | its ends |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for shape in ("line", "bezier", "polygon"):
        rows = [each[shape] for each in found["seeds"]]
        height = [barrier(torch.tensor(row["train_nll"], dtype=torch.float64)) for row in rows]
        cells = [spread(height, 3), spread([max(row["train_nll"]) for row in rows], 3)]
        for key in ("test_error", "stale_error"):
            cells.append(spread([max(row[key]) for row in rows], 1, 100) + " %")
            cells.append(spread([(row[key][0] + row[key][-1]) / 2 for row in rows], 1, 100) + " %")
        lines.append(f"| {shape} | {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    grow(__doc__, HERE / "figures.json", 8, one, table)
