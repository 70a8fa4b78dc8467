"""What members take on disk: every form of file beside the float32 checkpoint they come from.

    python -m benchmarks.files [--members 10] [--checkpoint FILE --depth 20] [--out FILE | --no-keep]

A file is written for each row and measured; `÷ checkpoint` counts all of it, header too. The networks are a random
transformer and, where a checkpoint is given, the CIFAR ResNet that it is of.
"""

from __future__ import annotations

import json
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import torch
import typer
from rich.console import Console
from rich.table import Table
from safetensors.torch import load_file, save_file
from torch import nn

import pluria
from benchmarks.machine import machine
from benchmarks.sides import Ratio
from pluria.core.ensemble import Ensemble
from pluria.store import save
from pluria.zoo import network

RESULT = Path(__file__).parent / "results" / "files.json"
FORMATS = ("int3", "int4", "int5", "int6", "int8")


@dataclass(frozen=True)
class Row:
    """One file: `bytes` on disk, and those of its float32 checkpoint as a unit."""

    network: str
    form: str
    format: str
    members: int
    bytes: int
    checkpoints: float


def transformer() -> nn.Module:
    """A random one of 2.9 million weights. Each layer has its own: of equal ones a file would keep one."""
    layers = [nn.TransformerEncoderLayer(256, 4, 1024, batch_first=True) for _ in range(2)]
    model = nn.ModuleDict({"embedding": nn.Embedding(5000, 256), "body": nn.Sequential(*layers)})
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(generator=generator)
    return model


def measure(name: str, model: nn.Module, members: int) -> list[Row]:
    """A row for each form and format."""
    with tempfile.TemporaryDirectory() as place:
        plain, path = Path(place, "net.safetensors"), Path(place, "made.pluria")
        save_file(dict(model.state_dict()), plain)
        whole, rows = plain.stat().st_size, [Row(name, "checkpoint", "float32", 1, plain.stat().st_size, 1.0)]

        def add(form: str, format: str, ensemble: Ensemble) -> None:
            save(path, ensemble)
            size = path.stat().st_size
            rows.append(Row(name, form, format, len(ensemble), size, size / whole))

        for count in (members, 1000):
            add("base and key", "int5", pluria.low_precision(model, format="int5", members=count))
        for format in FORMATS:
            drawn = pluria.low_precision(model, format=format, members=members)
            add("codes each, K b", format, pluria.packed(drawn, form="members"))
            add("bit planes, b + K", format, pluria.packed(drawn, form="planes"))
    return rows


def table(rows: list[Row]) -> Table:
    out = Table("network", "form", "format", "members", "bytes", "÷ checkpoint")
    for row in rows:
        out.add_row(row.network, row.form, row.format, str(row.members), f"{row.bytes:,}", f"{row.checkpoints:.3f}")
    return out


def main(
    members: Annotated[int, typer.Option(help="Members of packed files.")] = 10,
    checkpoint: Annotated[Path | None, typer.Option(help="A checkpoint of a CIFAR ResNet.")] = None,
    depth: Annotated[int, typer.Option(help="Its depth.")] = 20,
    out: Annotated[Path, typer.Option(help="Where the figures are kept.")] = RESULT,
    keep: Annotated[bool, typer.Option(help="Whether they are kept.")] = True,
) -> None:
    """Measure the sizes of files."""
    rows = measure("random transformer", transformer(), members)
    if checkpoint is not None:
        model = network("cifar_resnet", depth=depth)
        model.load_state_dict(load_file(checkpoint))
        rows += measure(f"ResNet-{depth}", model, members)
    Console().print(table(rows))
    if keep:
        ratios = [asdict(ratio_of(row)) for row in rows if row.form != "checkpoint"]
        content = {"machine": machine(), "ratios": ratios, "rows": [*map(asdict, rows)]}
        out.write_text(json.dumps(content, indent=1) + "\n")


def ratio_of(row: Row) -> Ratio:
    """A file over the float32 checkpoint; two of them have a bar."""
    bars = {("bit planes, b + K", "int5", 10): 1.0, ("base and key", "int5", 1000): 1.02}
    what = f"{row.network}: {row.members} {row.format} as {row.form} ÷ float32 checkpoint"
    return Ratio(what, row.checkpoints, row.checkpoints, row.checkpoints, bars.get((row.form, row.format, row.members)))


if __name__ == "__main__":
    typer.run(main)
