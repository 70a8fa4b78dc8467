"""pluria sample, predict, score, inspect and export: one step at a time, from a checkpoint to a file to figures."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pluria.cli.held import chosen, network_of, opened, scaling_of, together, views_of
from pluria.cli.look import described
from pluria.cli.options import (
    DryRun,
    Json,
    Quiet,
    choices,
    mistakes,
    note,
    pairs,
    ready,
    scale_of,
    several,
    show,
    told,
)
from pluria.cli.pooled import pool_of
from pluria.cli.running import run_parts

if TYPE_CHECKING:
    from pluria.core.ensemble import Ensemble
    from pluria.recipe.parts import Data

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
    packed: Annotated[str | None, typer.Option(help="Store codes, without the base: members or planes.")] = None,
    trust: Annotated[bool, typer.Option("--trust", help="Run the code that comes with a Hugging Face folder.")] = False,
    dry_run: DryRun = False,
    quiet: Quiet = False,
    json: Json = False,
) -> None:
    """Draw low-precision members of a trained network into a .pluria file.

    Example: pluria sample --model my_package.net:Net --checkpoint net.safetensors --out net.pluria
    """
    from pluria.store.export import packed as pack
    from pluria.store.file import save

    ready(out)
    with mistakes():
        options = {"format": format, "members": members, "coupling": coupling, "where": where or None, "key": seed}
        options["granularity"] = scale_of(granularity)
        ensemble, about = _drawn(model, pairs(argument, "--argument"), checkpoint, options, trust, quiet)
        ensemble = ensemble if packed is None else pack(ensemble, form=packed)  # type: ignore[arg-type]
    if not dry_run:
        save(out, {"ensemble": ensemble}, about=about)
    if json:
        show({"out": str(out), "written": not dry_run, **described(ensemble)})
    else:
        print(f"{'would write' if dry_run else 'wrote'} {out}: {several(len(ensemble))}, {format}, {coupling}")


def predict(
    file: EnsembleFile,
    data: Annotated[str, typer.Option(help="A .npz file, or a reader's name with --data-argument.")],
    out: Annotated[Path, typer.Option(help="The predictions, a safetensors file.")],
    data_argument: DataArguments = [],  # noqa: B006
    name: Name = None,
    trust: Annotated[
        bool, typer.Option("--trust", help="Run the code that the file's network names or brings.")
    ] = False,
    pool: Annotated[
        str | None, typer.Option(help="A pool by name, or off; else the fitted pool that the file holds.")
    ] = None,
    batch: Annotated[int, typer.Option(help="Examples at a time.")] = 256,
    dtype: Annotated[str, typer.Option(help="float32 or bfloat16.")] = "float32",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, ...")] = "auto",
    backend: Annotated[str, typer.Option(help="loop, auto (the fastest that agrees), bfloat16, vmap, ...")] = "loop",
    dry_run: DryRun = False,
    quiet: Quiet = False,
    json: Json = False,
) -> None:
    """Run every member on data and store the outputs [K, N, C] with the targets, and the pooled answers.

    Members of several networks that were drawn to answer together are run one network after the other. Where the file
    holds a fitted cascade, no more is asked than it says: what was not asked is NaN.
    """
    import torch

    from pluria.predict import Part
    from pluria.recipe.check import check_fits
    from pluria.recipe.resolve import built, dataset
    from pluria.store.tensors import write_tensors
    from pluria.zoo.views import view

    ready(out, ".safetensors")
    loaded = opened(file)
    parts = {one: chosen(loaded, one) for one in together(loaded, name)}
    models = {one: built(network_of(loaded, file, one, trust), trust=trust) for one in parts}
    given = pairs(data_argument, "--data-argument")
    scaled = scaling_of(loaded, data, given)
    if scaled:
        note(f"inputs are scaled as {file} says: {scaled}", quiet)
    rows = dataset(data_spec(data, {**scaled, **given}))
    for model in models.values():
        check_fits(model, rows)
    count = sum(map(len, parts.values()))
    chain = pool_of(loaded, pool, count, len(rows.classes))
    options: dict[str, Any] = {"batch": batch, "device": device, "dtype": dtype, "backend": backend}
    asked = None if chain is None else chain.cascade
    ready_parts = [Part(models[one], part, [view(v) for v in views_of(loaded, one)]) for one, part in parts.items()]
    if dry_run:
        batches = -(-len(rows) // batch)
        return show({"members": count, "rows": len(rows), "batches": batches, "out": str(out)})
    weights = torch.cat([part.weights for part in parts.values()]) / len(parts)
    with told(quiet) as progress, choices(quiet), mistakes():
        held = run_parts(ready_parts, asked, rows, weights, progress, **options)
    if chain is not None:
        with mistakes():
            held["pooled"] = chain(held["outputs"], weights)
    write_tensors(out, held, {"format": "pluria-predictions"})
    if json:
        return show({"out": str(out), "members": count, "rows": len(rows), "shape": list(held["outputs"].shape)})
    pooled = ", and the pooled answers" if chain is not None else ""
    print(f"wrote {out}: outputs {tuple(held['outputs'].shape)} of {several(count)} on {len(rows)} rows{pooled}")
    if asked is not None:
        spent = asked.spent(held["asked"])
        print(f"{spent.members:.2f} members for each example, {spent.share:.1%} of the {asked.unit} of asking all")


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
    console = Console(markup=False)
    console.print(table)
    diversity, rows = found["diversity"], found["rows"]
    console.print(
        f"{several(found['members'])}{_asked(found)}; temperature {found['temperature']:.3f} behind "
        f"{found['pool']}, fitted on {rows['calibration']} rows; figures on the other {rows['figures']}. Ambiguity "
        f"{diversity['ambiguity']:.4f}, disagreement {diversity['disagreement']:.4f}",
        highlight=False,
        soft_wrap=True,
    )


def _asked(found: dict[str, Any]) -> str:
    return f", of which {found['asked']:.2f} were asked for each example" if "asked" in found else ""


def export(
    file: EnsembleFile,
    out: Annotated[
        Path, typer.Option(help="A .safetensors or .pt file; a folder for --all and --folder; .pluria for --packed.")
    ],
    member: Annotated[int, typer.Option(help="Number of the member.")] = 0,
    every: Annotated[bool, typer.Option("--all", help="Every member, into a folder.")] = False,
    packed: Annotated[
        str | None, typer.Option(help="members or planes: the ensemble with codes, without its base.")
    ] = None,
    folder: Annotated[
        Path | None, typer.Option(help="Write the member as a Hugging Face folder; this is the one it was drawn from.")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a folder, for --folder.")] = False,
    name: Name = None,
    dry_run: DryRun = False,
    quiet: Quiet = False,
) -> None:
    """Write members as ordinary checkpoints that plain torch loads, as Hugging Face folders, or as packed codes."""
    from pluria.store.export import SUFFIXES, export_member, export_members
    from pluria.store.export import packed as pack
    from pluria.store.file import save

    if folder is not None:
        return _as_folder(file, name, member, folder, out, overwrite, dry_run, alone=not every and packed is None)
    if not every or packed is not None:
        ready(out)
    loaded = opened(file)
    ensemble = chosen(loaded, name)
    with mistakes():
        if packed is not None:
            made = pack(ensemble, form=packed)  # type: ignore[arg-type]
            what = f"{several(len(made))} as packed {packed}, {made.bits().file / 8e6:.2f} MB"
        else:
            what = f"{several(len(ensemble))}" if every else f"member {member}"
            if not every and member not in ensemble.members:
                raise ValueError(f"{file} has no member {member}; its members are {list(ensemble.members)}")
            if not every and out.suffix not in SUFFIXES:
                raise ValueError(f"{out}: a member is written to one of {', '.join(SUFFIXES)}")
        if dry_run:
            return print(f"would write {out}: {what}")
        if packed is not None:
            save(out, {name or "ensemble": made}, about=loaded.about)
        elif every:
            export_members(ensemble, out)
        else:
            export_member(ensemble, member, out)
    print(f"wrote {out}: {what}")


def _as_folder(
    file: Path, name: str | None, member: int, source: Path, out: Path, overwrite: bool, dry_run: bool, *, alone: bool
) -> None:
    """Write a member as a folder like the one it was drawn from."""
    from pluria.store.file import load_all
    from pluria.store.folder import export_folder

    ensemble = chosen(load_all(file, mapped=True), name)
    with mistakes():
        if not alone:
            raise ValueError("--folder writes one member; it does not go with --all or --packed")
        if not dry_run:
            export_folder(ensemble, member, out, source=source, overwrite=overwrite)
    print(f"{'would write' if dry_run else 'wrote'} {out}: member {member}, as {source}")


def _drawn(
    model: str, arguments: dict[str, Any], checkpoint: str | None, options: dict[str, Any], trust: bool, quiet: bool
) -> tuple[Ensemble, dict[str, Any]]:
    """Members of a network with its checkpoint, and what their file says about them."""
    from pluria.recipe.parts import Network
    from pluria.recipe.resolve import load_network
    from pluria.sample import low_precision

    spec = Network(model=model, arguments=arguments, checkpoint=checkpoint)
    network, notes = load_network(spec, trust=trust)
    for line in notes:
        note(line, quiet)
    known = spec.model_dump(mode="json", exclude={"checkpoint", "train"})
    return low_precision(network, copy=False, **options), {"network": known, "pool": "mean_probability"}


def data_spec(data: str, arguments: dict[str, Any]) -> Data:
    """Data by the name of a reader, or a .npz file."""
    from pluria.recipe.parts import Data

    with mistakes():
        held = {"path": data, **arguments} if data.endswith(".npz") else arguments
        return Data.model_validate({"reader": "arrays" if data.endswith(".npz") else data, "arguments": held})


COMMANDS = {"sample": sample, "predict": predict, "score": score, "export": export}
