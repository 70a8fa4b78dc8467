"""pluria inspect, methods and doctor: what is in a file, what can be done, and on what machine."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pluria.cli.options import Json, several, show

if TYPE_CHECKING:
    from rich.table import Table

    from pluria.core.ensemble import Ensemble


def inspect(
    file: Annotated[Path, typer.Argument(help="A .pluria file, or a checkpoint.")],
    json: Json = False,
) -> None:
    """Say what a .pluria file or a checkpoint holds, and what rounding it costs in noise."""
    from rich.console import Console
    from rich.table import Table

    found = _contents(file)
    if json:
        return show(found)
    console = Console(markup=False)
    for name, part in found["ensembles"].items():
        line = f"{name}: {several(part['members'])}, {part['parameters']:,} parameters"
        console.print(line, highlight=False, soft_wrap=True)
        console.print(_sizes(part))
        if part["noise"]:
            table = Table("tensor", "shape", "format", "noise", "nearest", "clipped")
            for row in part["noise"]:
                nearest = "" if row["nearest"] is None else f"{row['nearest']:.2%}"
                table.add_row(row["name"], "×".join(map(str, row["shape"])), row["format"], f"{row['noise']:.2%}",
                              nearest, f"{row['clipped']:.2%}")  # fmt: skip
            console.print(table)
        left = part["left_alone"]
        more = f" and {len(left) - 6} more" if len(left) > 6 else ""
        console.print(f"  in full precision: {', '.join(left[:6])}{more}", highlight=False, soft_wrap=True)
    for line in found["notes"]:
        console.print(line, highlight=False)
    console.print(f"{file.name}: {found['bytes']:,} bytes on disk, the header among them", highlight=False)
    if found["about"]:
        console.print(f"about: {_short(found['about'])}", highlight=False, soft_wrap=True)
        for line in _explained(found["about"].get("pool")):
            console.print(line, highlight=False, soft_wrap=True)


def _sizes(part: dict[str, Any]) -> Table:
    """What the members of an ensemble take, in each way of keeping them."""
    from rich.table import Table

    bits, count = part["bits"], part["members"]
    rows = {
        "base: one member in full precision": bits["base"],
        "one member, in its own numbers": bits["member"],
        f"{count} members, each by itself: K b": bits["members"],
        f"{count} members, bit planes: b + K": bits["planes"],
        "as stored: tensors and keys": bits["file"],
    }
    if bits["planes"] == bits["members"]:  # where no floor is known to be shared
        del rows[f"{count} members, bit planes: b + K"]
    table = Table("what", "bytes", "bits a parameter", "÷ base")
    for what, size in rows.items():
        each, ratio = (f"{size / whole:.3f}" for whole in (part["parameters"], bits["base"]))
        table.add_row(what, f"{-(-size // 8):,}", each, ratio)
    return table


def methods(json: Json = False) -> None:
    """List every method: what it does, what it needs, which laws it keeps."""
    from rich.console import Console
    from rich.table import Table

    from pluria.recipe.catalogue import CATALOGUE

    if json:
        rows = [vars(row) | {"options": {n: str(p) for n, p in row.options().items()}} for row in CATALOGUE]
        return show(rows)
    table = Table("verb", "method", "what it does", "needs", "options in a recipe")
    for row in CATALOGUE:
        table.add_row(row.verb, row.name, row.summary, row.needs, ", ".join(row.options()))
    Console(markup=False).print(table)


def doctor(json: Json = False) -> None:
    """Say whether this machine is ready: versions, accelerator, the compiled kernel and disk."""
    import shutil

    import torch

    from pluria.numbers import kernel
    from pluria.recipe.folder import environment

    found: dict[str, Any] = environment()
    w = torch.zeros(8, 8)
    from pluria.numbers.format import number_format
    from pluria.numbers.grid import fit_grid, layout

    grid = fit_grid(w, number_format("int5"), layout=layout(w.shape))
    found["compiled_rounding"] = kernel.serves(w, grid, torch.empty_like(w))
    found["free_disk_gb"] = round(shutil.disk_usage(".").free / 1e9, 1)
    for name in ("sklearn", "transformers"):
        found[name] = _version(name)
    if json:
        return show(found)
    for key, value in {**found, **found["packages"]}.items():
        if key != "packages":
            print(f"{key:18} {'none' if value is None else value}")
    if not found["compiled_rounding"]:
        print("hint: numba is missing or broken; rounding works, about fifty times slower. pip install numba")


def described(ensemble: Ensemble) -> dict[str, Any]:
    """What an ensemble is, as plain data."""
    from pluria.sample.noise import left_alone, noise

    families = {id(family): family for family in ensemble.families.values()}.values()
    bits = ensemble.bits()
    return {
        "members": len(ensemble),
        "weights": ensemble.weights.tolist(),
        "parameters": sum(family.shape.numel() for family in families),
        "families": sorted({type(family).__name__ for family in families}),
        "bits": {
            "base": sum(family.shape.numel() * family.dtype.itemsize * 8 for family in families),
            "member": ensemble.first(1).bits().members,
            **vars(bits),
        },
        "noise": [vars(row) for row in noise(ensemble)],
        "left_alone": left_alone(ensemble),
    }


def _short(about: dict[str, Any]) -> dict[str, Any]:
    """`about` with the kind of a fitted pool in place of its numbers; `--json` shows them."""
    held = about.get("pool")
    return {**about, "pool": f"{next(iter(held), 'empty')} (fitted)"} if isinstance(held, dict) else about


def _explained(pool: Any) -> list[str]:
    """How a cascade that a fitted pool begins with asks members, in words."""
    from pluria.pool.chain import Chain
    from pluria.pool.kinds import from_dict

    if not isinstance(pool, dict):
        return []
    try:
        rule = Chain((from_dict(pool),)).cascade
    except (ValueError, TypeError) as error:
        return [f"the pool cannot be used: {error}"]
    return [] if rule is None else rule.explain().splitlines()


def _contents(file: Path) -> dict[str, Any]:
    from pluria.core.ensemble import single
    from pluria.store.checkpoint import read_checkpoint
    from pluria.store.file import load_all

    size = file.stat().st_size if file.is_file() else sum(part.stat().st_size for part in file.glob("*.safetensors"))
    if file.suffix == ".pluria":
        loaded = load_all(file)
        parts = {name: described(ensemble) for name, ensemble in loaded.ensembles.items()}
        return {"ensembles": parts, "about": dict(loaded.about), "notes": [], "bytes": size}
    checkpoint = read_checkpoint(file)
    return {
        "ensembles": {file.name: described(single(checkpoint.params))},
        "about": {},
        "notes": list(checkpoint.notes),
        "bytes": size,
    }


def _version(name: str) -> str | None:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("scikit-learn" if name == "sklearn" else name)
    except PackageNotFoundError:
        return None


COMMANDS = {"inspect": inspect, "methods": methods, "doctor": doctor}
