"""pluria perplexity: what low precision and its ensembles cost a language model on a text."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pluria.cli.options import DryRun, Json, Progress, Quiet, mistakes, note, scale_of, show, told
from pluria.core.errors import DataError

if TYPE_CHECKING:
    from torch import Tensor, nn

    from pluria.core.ensemble import Ensemble

TEMPERED = ", temperature"
"""What the name of an arm ends in where its temperature was fitted."""


def perplexity(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="A Hugging Face folder with its tokenizer.")],
    text: Annotated[Path, typer.Option(help="A text file, UTF-8.")],
    format: Annotated[str, typer.Option(help="Number system: int2..int8, fp8-e4m3, nf4, ...")] = "int5",
    members: Annotated[int, typer.Option(help="How many.")] = 8,
    granularity: Annotated[str, typer.Option(help="channel, tensor, or a group size.")] = "channel",
    coupling: Annotated[str, typer.Option(help="stratified, antithetic or independent.")] = "stratified",
    pool: Annotated[str, typer.Option(help="What is averaged at each token: probability or logit.")] = "probability",
    context: Annotated[int | None, typer.Option(help="Tokens read at once; the network's own, at most 2048.")] = None,
    stride: Annotated[int | None, typer.Option(help="Tokens from window to window; half of the context.")] = None,
    fit: Annotated[float, typer.Option(help="Share of the text, its beginning, that fits temperatures.")] = 0.25,
    batch: Annotated[int, typer.Option(help="Windows at a time.")] = 1,
    block: Annotated[int, typer.Option(help="Tokens whose words stand in memory at once.")] = 256,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, ...")] = "auto",
    seed: Annotated[int, typer.Option(help="Seed of the members.")] = 0,
    trust: Annotated[bool, typer.Option("--trust", help="Run the code that comes with the folder.")] = False,
    dry_run: DryRun = False,
    quiet: Quiet = False,
    json: Json = False,
) -> None:
    """Perplexity and calibration of full precision, nearest rounding and an ensemble, before and after temperature.

    Example: pluria perplexity folder --text text.txt --format int5 --members 8
    """
    from pluria.language import tokenizer_in
    from pluria.recipe.resolve import device_of
    from pluria.store.pretrained import network_in

    with mistakes():
        if not 0 < fit < 1:
            raise ValueError(f"--fit is a share of the text between 0 and 1; got {fit}")
        model = network_in(folder, trust=trust)
        parts = _parts(_tokens(tokenizer_in(folder, model=model, trust=trust), text), fit)
        how: dict[str, Any] = {"context": context, "stride": stride, "batch": batch, "block": block, "pool": pool}
        _check(model, parts, how)
        drawn: dict[str, Any] = {"members": members, "coupling": coupling, "key": seed}
        arms = _arms(model, format, scale_of(granularity), drawn)
        counts = {"fit": len(parts[0]), "figures": len(parts[1])}
        if dry_run:
            return show({"arms": list(arms), "forwards": 2 + members, "tokens": sum(counts.values()), **counts})
        how["device"] = device_of(device)
        with told(quiet) as progress:
            rows = _rows(model, arms, parts, how, progress)
    first, rest = counts.values()
    note(f"temperatures are fitted on the first {first} tokens, figures are of the other {rest}", quiet)
    if json:
        return show({"text": str(text), "tokens": counts, "rows": rows})
    _table(rows)


def _arms(model: nn.Module, format: str, granularity: int | str, drawn: dict[str, Any]) -> dict[str, Ensemble]:
    """What is compared, by name."""
    from pluria.core.ensemble import single
    from pluria.core.params import params_of
    from pluria.sample import low_precision, nearest

    grid: dict[str, Any] = {"format": format, "granularity": granularity}
    return {
        "full precision": single(params_of(model)),
        f"{format} nearest": nearest(model, **grid),
        f"{format} ensemble": low_precision(model, **grid, **drawn),
    }


def _tokens(tokenizer: Any, text: Path) -> Tensor:
    from pluria.language import tokens_of

    try:
        return tokens_of(tokenizer, text.read_text(encoding="utf-8"))
    except UnicodeDecodeError as error:
        raise DataError(f"{text} is no text in UTF-8 ({error.reason} at byte {error.start})") from None


def _parts(tokens: Tensor, fit: float) -> tuple[Tensor, Tensor]:
    """The beginning, which fits temperatures, and the rest, which gives the figures."""
    at = round(len(tokens) * fit)
    if min(at, len(tokens) - at) < 2:
        raise ValueError(f"the text has {len(tokens)} tokens, too few to fit a temperature on {at} and score the rest")
    return tokens[:at], tokens[at:]


def _check(model: nn.Module, parts: tuple[Tensor, Tensor], how: dict[str, Any]) -> None:
    """What would be refused later is refused before any work."""
    from pluria.language.average import RULES
    from pluria.language.perplexity import slide

    for part in parts:
        slide(model, part, context=how["context"], stride=how["stride"])
    if how["pool"] not in RULES:
        raise ValueError(f"--pool is {' or '.join(RULES)}; got {how['pool']!r}")
    if how["batch"] < 1 or how["block"] < 1:
        raise ValueError(f"--batch and --block are 1 or more; got {how['batch']} and {how['block']}")


def _rows(
    model: nn.Module,
    arms: dict[str, Ensemble],
    parts: tuple[Tensor, Tensor],
    how: dict[str, Any],
    progress: Progress,
) -> list[dict[str, Any]]:
    from pluria.language.perplexity import perplexity as measured
    from pluria.language.temperature import fit_token_temperature

    rows = []
    for done, (name, ensemble) in enumerate(arms.items()):
        progress("scoring", done, len(arms))
        temperature = fit_token_temperature(model, ensemble, parts[0], **how)
        for label, value in ((name, 1.0), (f"{name}{TEMPERED}", temperature)):
            found = measured(model, ensemble, parts[1], temperature=value, **how)
            rows.append({"name": label, "temperature": value, "perplexity": found.perplexity, **vars(found)})
    return rows


def _table(rows: list[dict[str, Any]]) -> None:
    """Narrow enough for a terminal of eighty columns: rows of one arm differ in the temperature T."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    heads = ("", "T", "perplexity", "nats", "member", "ECE", "MI", "agreement")
    table = Table(*heads, box=SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    for column in table.columns[1:]:
        column.justify = "right"
    for row in rows:
        apart = [f"{row['mutual_information']:.3f}", f"{row['agreement']:.0%}"] if row["members"] > 1 else ["", ""]
        figures = [f"{row[key]:.3f}" for key in ("temperature", "perplexity", "nats", "member_nats", "ece")]
        table.add_row(row["name"].removesuffix(TEMPERED), *figures, *apart)
    Console(markup=False).print(table)


COMMANDS = {"perplexity": perplexity}
