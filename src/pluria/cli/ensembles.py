"""pluria sample, predict, score, inspect and export: one step at a time, from a checkpoint to a file to figures."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pluria.cli.options import DryRun, Json, Quiet, mistakes, note, pairs, show, told
from pluria.core.errors import DataError, PluriaError

if TYPE_CHECKING:
    from pluria.recipe.schema import Network
    from pluria.store.file import Loaded

Arguments = Annotated[list[str], typer.Option("--argument", metavar="KEY=VALUE", help="An argument of the network.")]
DataArguments = Annotated[list[str], typer.Option("--data-argument", metavar="KEY=VALUE", help="Of the reader.")]
Name = Annotated[str | None, typer.Option(help="Which ensemble of the file, where it holds several.")]
EnsembleFile = Annotated[Path, typer.Argument(metavar="FILE.pluria", help="A saved ensemble.")]


def sample(
    out: Annotated[Path, typer.Option(help="The .pluria file to write.")],
    model: Annotated[
        str, typer.Option(help="package.module:Class (runs that code), a zoo name, or a Hugging Face folder.")
    ],
    checkpoint: Annotated[
        str | None, typer.Option(help="Trained tensors: .safetensors, .pt, .pth, .th or a folder.")
    ] = None,
    argument: Arguments = [],  # noqa: B006
    format: Annotated[str, typer.Option(help="Number system: int2..int8, fp8-e4m3, nf4, ...")] = "int5",
    members: Annotated[int, typer.Option(help="How many.")] = 8,
    coupling: Annotated[str, typer.Option(help="stratified, antithetic or independent.")] = "stratified",
    granularity: Annotated[str, typer.Option(help="channel, tensor, or a group size.")] = "channel",
    where: Annotated[list[str], typer.Option(help="Name patterns of what to round; !pattern leaves out.")] = [],  # noqa: B006
    seed: Annotated[int, typer.Option(help="Seed of the members.")] = 0,
    packed: Annotated[
        str | None, typer.Option(help="Store codes: members or planes; the base is then left out.")
    ] = None,
    dry_run: DryRun = False,
    quiet: Quiet = False,
    json: Json = False,
) -> None:
    """Draw low-precision members of a trained network into a .pluria file.

    Example: pluria sample --model my_package.net:Net --checkpoint net.safetensors --out net.pluria
    """
    from pluria.recipe.resolve import load_network
    from pluria.recipe.schema import Network
    from pluria.sample import low_precision
    from pluria.store.export import packed as pack
    from pluria.store.file import save

    with mistakes():
        spec = Network(model=model, arguments=pairs(argument, "--argument"), checkpoint=checkpoint)
        network, notes = load_network(spec)
        group = int(granularity) if granularity.isdigit() else granularity
        ensemble = low_precision(network, format=format, members=members, coupling=coupling, granularity=group,  # type: ignore[arg-type]
                                 where=where or None, key=seed)  # fmt: skip
        ensemble = ensemble if packed is None else pack(ensemble, form=packed)  # type: ignore[arg-type]
    for line in notes:
        note(line, quiet)
    if not dry_run:
        known = spec.model_dump(mode="json", exclude={"checkpoint", "train"})
        save(out, {"ensemble": ensemble}, about={"network": known, "pool": "mean_probability"})
    if json:
        from pluria.cli.look import described

        show({"out": str(out), "written": not dry_run, **described(ensemble)})
    else:
        print(f"{'would write' if dry_run else 'wrote'} {out}: {len(ensemble)} members, {format}, {coupling}")


def predict(
    file: EnsembleFile,
    data: Annotated[str, typer.Option(help="A .npz file, or a reader's name with --data-argument.")],
    out: Annotated[Path, typer.Option(help="The predictions, a safetensors file.")],
    data_argument: DataArguments = [],  # noqa: B006
    name: Name = None,
    trust: Annotated[bool, typer.Option("--trust", help="Let the file's import path run its code.")] = False,
    batch: Annotated[int, typer.Option(help="Examples at a time.")] = 256,
    dtype: Annotated[str, typer.Option(help="float32 or bfloat16.")] = "float32",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, ...")] = "auto",
    dry_run: DryRun = False,
    quiet: Quiet = False,
    json: Json = False,
) -> None:
    """Run every member on data and store the outputs [K, N, C] with the targets."""
    import torch
    from safetensors.torch import save as to_bytes

    from pluria.predict import gather
    from pluria.predict import predict as run_members
    from pluria.recipe.check import check_fits
    from pluria.recipe.resolve import built, dataset, device_of
    from pluria.recipe.schema import Data
    from pluria.store.atomic import replacing

    loaded = _loaded(file)
    ensemble, model = _chosen(loaded, name), built(_network(loaded, file, trust))
    arguments = pairs(data_argument, "--data-argument")
    with mistakes():
        if dtype not in ("float32", "bfloat16"):
            raise ValueError(f"--dtype is float32 or bfloat16; got {dtype!r}")
        spec = {"reader": data, "arguments": arguments}
        if data.endswith(".npz"):
            spec = {"reader": "arrays", "arguments": {"path": data, **arguments}}
        rows = dataset(Data.model_validate(spec))
        batches, where = rows.batches(batch), device_of(device)
    check_fits(model, rows)
    if dry_run:
        return show({"members": len(ensemble), "rows": len(rows), "batches": len(batches), "out": str(out)})
    with told(quiet) as progress, mistakes():
        steps, found = len(ensemble) * len(batches), []
        blocks = run_members(model, ensemble, batches, class_axis=1, device=where, dtype=getattr(torch, dtype))
        for done, block in enumerate(blocks, 1):
            found.append(block)
            progress("predicting", done, steps)
    outputs, targets = gather(found)
    held = {"outputs": outputs, "targets": targets, "weights": ensemble.weights}
    with replacing(out) as handle:
        handle.write(to_bytes({n: t for n, t in held.items() if t is not None}, {"format": "pluria-predictions"}))
    if json:
        show({"out": str(out), "members": len(ensemble), "rows": len(rows), "shape": list(outputs.shape)})
    else:
        print(f"wrote {out}: outputs {tuple(outputs.shape)} of {len(ensemble)} members on {len(rows)} rows")


def score(
    file: Annotated[Path, typer.Argument(help="Predictions made by `pluria predict`.")],
    json: Json = False,
) -> None:
    """Figures of stored predictions: half of the rows fit the temperature, the other half give the figures."""
    from pluria.recipe.stored import scored

    found = scored(file)
    if json:
        return show(found)
    from rich.console import Console
    from rich.table import Table

    table = Table("score", "ensemble", "after temperature", "mean member")
    for key in found["scores"]:
        member = found["diversity"].get(f"member_{key}")
        table.add_row(
            key, f"{found['scores'][key]:.4f}", f"{found['scaled'][key]:.4f}", "" if member is None else f"{member:.4f}"
        )
    console = Console()
    console.print(table)
    diversity, rows = found["diversity"], found["rows"]
    console.print(
        f"{found['members']} members; temperature {found['temperature']:.3f}, fitted on {rows['calibration']} rows; "
        f"figures on the other {rows['figures']}. Ambiguity {diversity['ambiguity']:.4f}, "
        f"disagreement {diversity['disagreement']:.4f}",
        highlight=False,
        soft_wrap=True,
    )


def export(
    file: EnsembleFile,
    out: Annotated[Path, typer.Option(help="A .safetensors or .pt file; a folder for --all; .pluria for --packed.")],
    member: Annotated[int, typer.Option(help="Number of the member.")] = 0,
    every: Annotated[bool, typer.Option("--all", help="Every member, into a folder.")] = False,
    packed: Annotated[
        str | None, typer.Option(help="members or planes: the ensemble with codes, without its base.")
    ] = None,
    name: Name = None,
    dry_run: DryRun = False,
    quiet: Quiet = False,
) -> None:
    """Write members as ordinary checkpoints that plain torch loads, or the ensemble as packed codes."""
    from pluria.store.export import export_member, export_members
    from pluria.store.export import packed as pack
    from pluria.store.file import save

    loaded = _loaded(file)
    ensemble = _chosen(loaded, name)
    with mistakes():
        if packed is not None:
            made = pack(ensemble, form=packed)  # type: ignore[arg-type]
            what = f"{len(made)} members as packed {packed}, {made.bits().file / 8e6:.2f} MB"
        else:
            what = f"{len(ensemble)} members" if every else f"member {member}"
        if dry_run:
            return print(f"would write {out}: {what}")
        if packed is not None:
            save(out, {name or "ensemble": made}, about=loaded.about)
        elif every:
            export_members(ensemble, out)
        else:
            export_member(ensemble, member, out)
    print(f"wrote {out}: {what}")


def _loaded(file: Path) -> Loaded:
    from pluria.store.file import load_all

    return load_all(file)


def _chosen(loaded: Loaded, name: str | None) -> Any:
    found = loaded.ensembles
    if name is None and len(found) == 1:
        return next(iter(found.values()))
    if name is None or name not in found:
        raise PluriaError(f"the file holds {', '.join(map(repr, found))}: say which by --name")
    return found[name]


def _network(loaded: Loaded, file: Path, trust: bool) -> Network:
    from pluria.recipe.schema import Network

    held = loaded.about.get("network")
    if not isinstance(held, dict) or not isinstance(held.get("model"), str):
        raise DataError(f"{file} does not say which network its members belong to; draw it again with `pluria sample`")
    if ":" in held["model"] and not trust:
        raise PluriaError(f"{file} names the code {held['model']!r}, which would be run; allow it by --trust")
    return Network(model=held["model"], arguments=held.get("arguments", {}))


COMMANDS = {"sample": sample, "predict": predict, "score": score, "export": export}
