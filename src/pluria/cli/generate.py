"""pluria generate: text that an ensemble writes, with the words that its members do not agree on."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pluria.cli.options import DryRun, Json, Quiet, mistakes, note, ready, scale_of, several, show

if TYPE_CHECKING:
    from torch import nn

    from pluria.core.ensemble import Ensemble
    from pluria.language import Generated
    from pluria.language.ready import Ready


def generate(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="A Hugging Face folder with its tokenizer.")],
    prompt: Annotated[list[str], typer.Option(help="What the text begins with; given several times, a batch.")],
    format: Annotated[str, typer.Option(help="Number system: int2..int8, fp8-e4m3, nf4, ...")] = "int5",
    members: Annotated[int, typer.Option(help="How many.")] = 8,
    granularity: Annotated[str, typer.Option(help="channel, tensor, or a group size.")] = "channel",
    coupling: Annotated[str, typer.Option(help="stratified, antithetic or independent.")] = "stratified",
    pool: Annotated[str, typer.Option(help="What is averaged at each token: probability or logit.")] = "probability",
    max_new_tokens: Annotated[int, typer.Option(help="Tokens to write at most.")] = 64,
    temperature: Annotated[float, typer.Option(help="0 takes the most probable token; above 0 it is drawn.")] = 0.0,
    top_k: Annotated[int | None, typer.Option(help="Draw from the k most probable tokens.")] = None,
    top_p: Annotated[float | None, typer.Option(help="Draw from the fewest that have this probability.")] = None,
    backend: Annotated[
        str, typer.Option(help="loop, side_by_side, rows, or auto: the fastest that memory holds.")
    ] = "auto",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, ...")] = "auto",
    seed: Annotated[int, typer.Option(help="Seed of the members and of what is drawn.")] = 0,
    html: Annotated[Path | None, typer.Option(help="Write the text as a page, too.")] = None,
    trust: Annotated[bool, typer.Option("--trust", help="Run the code that comes with the folder.")] = False,
    dry_run: DryRun = False,
    quiet: Quiet = False,
    json: Json = False,
) -> None:
    """Write on from a prompt; words are coloured by the share of members whose first choice they are.

    Example: pluria generate folder --prompt "Once upon a time" --format int5 --members 8
    """
    from pluria.language import generate_batch, tokenizer_in
    from pluria.language.ready import check_network, checked
    from pluria.language.sampling import Sampling
    from pluria.recipe.resolve import device_of
    from pluria.sample.rounding import low_precision
    from pluria.store.file import load

    if html is not None:
        ready(html)
    with mistakes():
        Sampling(temperature, top_k, top_p)
        model = load(folder, trust=trust)
        check_network(model)
        grid: dict[str, Any] = {"format": format, "coupling": coupling, "members": members, "key": seed}
        ensemble = low_precision(model, granularity=scale_of(granularity), **grid)
        how: dict[str, Any] = {"max_new_tokens": max_new_tokens, "pool": pool, "backend": backend}
        how |= {"tokenizer": tokenizer_in(folder, model=model, trust=trust), "device": device_of(device)}
        found = checked(model, ensemble, prompt, available=None, dtype=None, **how)
        note(_memory(model, ensemble, found), quiet)
        if dry_run:
            read = [len(one) for one in found.prompts]
            return show({"prompts": read, "members": members, "forwards_at_most": members * max_new_tokens})
        drawn: dict[str, Any] = {"temperature": temperature, "top_k": top_k, "top_p": top_p, "seed": seed}
        texts = generate_batch(model, ensemble, prompt, **how, **drawn)
    _tell(texts, html, quiet, json)


def _memory(model: nn.Module, ensemble: Ensemble, found: Ready) -> str:
    """What the members take, in a line."""
    from pluria.core.sizes import readable

    copy = sum(value.numel() * value.element_size() for value in model.parameters())
    kept = "caches" if found.backend == "loop" else "caches and tensors of their own"
    parts = f"a working copy of {readable(copy)}, {several(len(ensemble))} with {kept}, {readable(found.each)} each"
    return f"memory: {parts}" + (f"; {readable(found.free)} may be taken" if found.free is not None else "")


def _tell(texts: list[Generated], html: Path | None, quiet: bool, json: bool) -> None:
    """The text alone for a pipe, coloured for a terminal."""
    from pluria.report.words import as_ansi, as_html
    from pluria.store.atomic import replacing

    if html is not None:
        with replacing(html) as file:
            file.write(as_html(texts).encode())
    if json:
        return show([_plain(one) for one in texts] if len(texts) > 1 else _plain(texts[0]))
    if sys.stdout.isatty():
        print(f"\n{as_ansi(texts, colour=not os.environ.get('NO_COLOR'))}\n")
    else:
        print("\n\n".join(one.prompt_text + one.text for one in texts))
    count, same = sum(len(one.tokens) for one in texts), sum(float(one.agreement.sum()) for one in texts)
    said = f"{count} tokens by {several(texts[0].members)}, mean agreement {same / count:.0%}"
    note(said + (f"; page: {html}" if html else ""), quiet)


def _plain(found: Generated) -> dict[str, Any]:
    """What was written, as plain data."""
    return {
        "prompt": found.prompt_text,
        "text": found.text,
        "members": found.members,
        "stopped": found.stopped,
        "tokens": [
            {"token": token, "piece": piece, "log_prob": log_prob, "agreement": same, "mutual_information": apart}
            for token, piece, log_prob, same, apart in zip(
                found.tokens.tolist(), found.pieces, found.log_probs.tolist(), found.agreement.tolist(),
                found.mutual_information.tolist(), strict=True,
            )
        ],
    }  # fmt: skip


COMMANDS = {"generate": generate}
