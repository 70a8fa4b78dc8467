"""Text by an ensemble against one plain `generate` of transformers: members in a loop, side by side, as rows.

    python -m benchmarks.generate [--size small] [--tokens 16] [--rounds 3] [--batch 1] [--members 1 --members 8]

The network is a Llama of random numbers, float32, greedy, and no token ends a text, so all ways write equally many
tokens. In each round every way has one turn, plain `generate` first; a ratio is that of two turns of one round.
Counted is the processor's time of one thread, which other work on the machine hardly changes. What a call makes first
is in it: the working copy, the members that are held.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from typing import Annotated, Any

import torch
import typer
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

import pluria
from benchmarks import sides
from benchmarks.machine import load_average
from benchmarks.sides import Ratio
from pluria.language import generate_batch

PROMPT = 16
"""Tokens of a prompt."""

Way = Callable[[], Any]


@dataclass(frozen=True)
class Row:
    """One way; ratios are to the plain turn of the same round: their median, the lowest and the highest."""

    way: str
    members: int
    batch: int
    seconds: float
    ratio: float
    lowest: float
    highest: float


SIZES: dict[str, dict[str, int]] = {
    "small": {"hidden_size": 384, "intermediate_size": 1032, "num_hidden_layers": 4, "vocab_size": 8192},
    "large": {"hidden_size": 768, "intermediate_size": 2064, "num_hidden_layers": 12, "vocab_size": 32000},
}


def network(size: str = "small") -> nn.Module:
    """A Llama of ten or of a hundred million random numbers."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    ends: dict[str, Any] = {"bos_token_id": 0, "eos_token_id": None, "pad_token_id": 0, "tie_word_embeddings": True}
    heads = SIZES[size]["hidden_size"] // 64
    config = LlamaConfig(num_attention_heads=heads, max_position_embeddings=1024, **SIZES[size], **ends)
    model: nn.Module = LlamaForCausalLM(config)
    return model.eval()


def ways(model: Any, prompts: Tensor, counts: list[int], tokens: int) -> dict[tuple[str, int], Way]:
    """How to write, by name and number of members; the plain way is first."""
    options = {"max_new_tokens": tokens, "do_sample": False}
    found: dict[tuple[str, int], Way] = {
        ("plain", 1): partial(model.generate, prompts, attention_mask=torch.ones_like(prompts), **options)
    }
    for count in counts:
        ensemble = pluria.low_precision(model, format="int4", members=count)
        for backend in ("loop", "side_by_side", "rows"):
            found[backend, count] = partial(
                generate_batch, model, ensemble, list(prompts), max_new_tokens=tokens, backend=backend, stop=()
            )
    return found


def measure(model: nn.Module, batch: int, counts: list[int], tokens: int, rounds: int) -> list[Row]:
    """Processor seconds of every way in every round; the first round, which compiles, is not counted."""
    prompts = torch.randint(1, 8192, (batch, PROMPT), generator=torch.Generator().manual_seed(0))
    turns: dict[tuple[str, int], list[float]] = {}
    for number in range(rounds + 1):
        for name, way in ways(model, prompts, counts, tokens if number else 2).items():
            start = time.process_time()
            way()
            if number:
                turns.setdefault(name, []).append(time.process_time() - start)
    plain = turns["plain", 1]
    return [_row(*name, batch, taken, plain) for name, taken in turns.items()]


def _row(way: str, members: int, batch: int, taken: list[float], plain: list[float]) -> Row:
    ratios = [one / other for one, other in zip(taken, plain, strict=True)]
    figures = (statistics.median(taken), statistics.median(ratios), min(ratios), max(ratios))
    return Row(way, members, batch, *(round(figure, 3) for figure in figures))


def _ratio_of(row: Row, size: str) -> Ratio:
    what = f"{size} Llama, {row.batch} prompts: {row.members} INT-4 members, {row.way} ÷ plain generate, processor time"
    return Ratio(what, row.ratio, row.lowest, row.highest)


def table(rows: list[Row]) -> Table:
    out = Table("prompts", "way", "members", "seconds", "x plain", "lowest", "highest", "x plain for a member")
    for row in rows:
        figures = (row.seconds, row.ratio, row.lowest, row.highest, row.ratio / row.members)
        out.add_row(str(row.batch), row.way, str(row.members), *(f"{figure:.2f}" for figure in figures))
    return out


def main(
    tokens: Annotated[int, typer.Option(help="Tokens to write.")] = 16,
    rounds: Annotated[int, typer.Option(help="Turns of every way.")] = 3,
    batch: Annotated[list[int], typer.Option(help="Prompts at once.")] = [1, 4],  # noqa: B006
    members: Annotated[list[int], typer.Option(help="Numbers of members.")] = [1, 4, 8],  # noqa: B006
    size: Annotated[str, typer.Option(help="small or large: of ten or of a hundred million numbers.")] = "small",
    out: Annotated[str, typer.Option(help="Name of the result.")] = "generate",
) -> None:
    """Measure text generation on this machine."""
    torch.set_num_threads(1)
    before = load_average()
    model = network(size)
    count = sum(value.numel() for value in model.parameters())
    rows = [row for number in batch for row in measure(model, number, members, tokens, rounds)]
    found = [_ratio_of(row, size) for row in rows if row.way != "plain"]
    about = {"parameters": count, "format": "int4", "prompt": PROMPT, "tokens": tokens, "rounds": rounds}
    sides.keep(out, found, load_average=before, **about, ways=[asdict(row) for row in rows])
    typer.echo(f"Llama of {count:,} random numbers, INT-4 members, {tokens} tokens behind {PROMPT}; {rounds} rounds")
    Console(width=120).print(table(rows))


if __name__ == "__main__":
    typer.run(main)
