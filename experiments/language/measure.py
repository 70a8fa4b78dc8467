"""Low-precision ensembles of a small language model: perplexity, calibration, and whether text is of a foreign kind.

    python experiments/language/measure.py out/stories260k --foreign data/text/tinyshakespeare.txt \\
        --out out/language.json

In-domain text is told by the full-precision network itself, sampled at temperature 1 with a fixed seed, so nothing can
have a lower expected perplexity on it than the network. Out-of-domain text is Shakespeare. Every window is 128 tokens
behind <s>. Temperatures are fitted on windows of the same kind of text that give no figures; compensated members read
in-domain windows that give none either. Seeds are those of the members. An arm whose figures are in --out already is
not run again.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import pluria
from pluria.core.ensemble import Ensemble
from pluria.core.params import params_of
from pluria.language import averages, tokenizer_in, tokens_of
from pluria.pool import fit_temperature
from pluria.score import auroc, ece, nll

LENGTH, FITS, JUDGES, READS = 128, 6, 16, 16
"""Tokens of a window; windows that fit a temperature, give figures, and are read for compensation."""

SIZES, FEW, SEEDS = (1, 2, 4, 8, 16), (1, 2, 4), (0, 1, 2)
"""How many members; from INT-6 on few are asked for, since a single one is as good as full precision."""

FORMATS = ("int3", "int4", "int5", "int6", "int7", "int8")
GROUP, GROUPED, COMPENSATED = 4, ("int3", "int4", "int5"), ("int3", "int4", "int5")


@dataclass(frozen=True)
class Text:
    """Windows `[W, L]` of one kind: those that fit, and those that give figures."""

    fit: Tensor
    judge: Tensor

    @property
    def batches(self) -> list[tuple[dict[str, Tensor], Tensor]]:
        """Both parts as batches for `averages`, a place's target the token after it."""
        return [({"input_ids": part[:, :-1]}, part[:, 1:]) for part in (self.fit, self.judge)]


def told(model: nn.Module, *, seed: int, count: int) -> Tensor:
    """Windows `[count, L]` sampled from the network token by token at temperature 1, all behind <s>."""
    rows = torch.full((count, 1), 1)
    generator, cache = torch.Generator().manual_seed(seed), None
    with torch.no_grad():
        for _ in range(LENGTH):
            output = model(input_ids=rows[:, -1:], past_key_values=cache, use_cache=True)
            cache = output.past_key_values
            words = output.logits[:, -1].double().softmax(-1)
            rows = torch.cat([rows, torch.multinomial(words, 1, generator=generator)], dim=1)
    return rows


def cut(tokens: Tensor, *, count: int) -> Tensor:
    """Windows `[count, L]` spread evenly over a text, each behind <s>."""
    starts = torch.linspace(1, len(tokens) - LENGTH, count).long()
    return torch.stack([torch.cat([tokens[:1], tokens[start : start + LENGTH]]) for start in starts])


def scored(model: nn.Module, ensemble: Ensemble, text: Text, sizes: Sequence[int]) -> dict[int, dict[str, Any]]:
    """Figures of the first K members on one kind of text, and how uncertain they are of each window."""
    parts: dict[int, dict[int, list[Any]]] = {}
    for number, block in averages(model, ensemble, text.batches, sizes=sizes, block=1024):
        parts.setdefault(block.members, {}).setdefault(number, []).append(block)
    return {size: _figures(both[0], both[1]) for size, both in parts.items()}


def _figures(fit: list[Any], judge: list[Any]) -> dict[str, Any]:
    (seen, y_seen), (pooled, y) = (
        (torch.cat([b.pooled for b in p]), torch.cat([b.targets for b in p])) for p in (fit, judge)
    )
    temperature = fit_temperature(seen, y_seen)
    scaled = temperature(pooled)
    entropy = torch.special.entr(pooled.double().exp()).sum(-1)
    weights = judge[0].weights[:, None]
    inner = torch.cat([(weights * block.entropies).sum(0) for block in judge])
    agree = torch.cat([(weights * (block.tops == block.pooled.argmax(-1))).sum(0) for block in judge])
    member = torch.cat([(weights * block.log_probs).sum(0) for block in judge])

    def by_window(values: Tensor) -> Tensor:
        return values.double().reshape(JUDGES, -1).mean(1)

    return {
        "nats": float(nll(pooled, y).mean()),
        "scaled_nats": float(nll(scaled, y).mean()),
        "temperature": temperature.value,
        "member_nats": -float(member.mean()),
        "ece": ece(pooled, y),
        "scaled_ece": ece(scaled, y),
        "mutual_information": float((entropy - inner).mean()),
        "agreement": float(agree.double().mean()),
        "windows": {
            "entropy": by_window(entropy),
            "mutual information": by_window(entropy - inner),
            "disagreement": 1 - by_window(agree),
            "nats": by_window(nll(pooled, y)),
        },
    }


def judged(model: nn.Module, ensemble: Ensemble, texts: dict[str, Text], sizes: Sequence[int]) -> list[dict[str, Any]]:
    """Figures for every K, on both kinds of text, and the AUROC of windows of foreign text among the others."""
    by_kind = {kind: scored(model, ensemble, text, sizes) for kind, text in texts.items()}
    rows = []
    for size in sizes:
        found = {kind: dict(figures[size]) for kind, figures in by_kind.items()}
        own, foreign = (found[kind].pop("windows") for kind in ("stories", "shakespeare"))
        positive = torch.arange(2 * JUDGES) >= JUDGES
        apart = {name: auroc(torch.cat([own[name], foreign[name]]), positive) for name in own}
        rows.append(
            {"members": size, **found, "auroc": apart if size > 1 else {n: apart[n] for n in ("entropy", "nats")}}
        )
    return rows


def arms(model: nn.Module, reads: Tensor, seed: int) -> dict[str, Ensemble]:
    """Every ensemble of one seed by its name."""
    options: dict[str, Any] = {"members": max(SIZES), "key": seed}
    found = {f"{one} stochastic": pluria.low_precision(model, format=one, **options) for one in FORMATS}
    found |= {name: found[name].first(max(FEW)) for name in (f"int{bits} stochastic" for bits in (6, 7, 8))}
    for one in GROUPED:
        name = f"{one} stochastic, groups of {GROUP}"
        found[name] = pluria.low_precision(model, format=one, granularity=GROUP, **options)
    second = pluria.moments(model, [{"input_ids": reads}])
    for one in COMPENSATED:
        found[f"{one} compensated"] = pluria.compensated(model, second, format=one, **options)
    for one in COMPENSATED:
        held = [{"input_ids": reads}]
        found[f"{one} compensated, block by block"] = pluria.compensated(
            model, held, format=one, follow="reference", **options
        )
    return found


def single(model: nn.Module) -> dict[str, Ensemble]:
    """The controls that have no seed: full precision and nearest rounding."""
    near = {f"{one} nearest": pluria.nearest(model, format=one) for one in FORMATS}
    grouped = {
        f"{one} nearest, groups of {GROUP}": pluria.nearest(model, format=one, granularity=GROUP) for one in GROUPED
    }
    return {"full precision": pluria.single(params_of(model)), **near, **grouped}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--foreign", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path("out/language.json"))
    given = parser.parse_args()
    torch.set_num_threads(1)
    model = pluria.load(given.folder)
    words = tokenizer_in(given.folder, model=model)
    own = told(model, seed=0, count=FITS + JUDGES + READS)
    foreign = cut(tokens_of(words, given.foreign.read_text(encoding="utf-8")[:100_000]), count=FITS + JUDGES)
    order = torch.randperm(len(foreign), generator=torch.Generator().manual_seed(0))
    foreign = foreign[order]
    texts = {
        "stories": Text(own[:FITS], own[FITS : FITS + JUDGES]),
        "shakespeare": Text(foreign[:FITS], foreign[FITS:]),
    }
    before = json.loads(given.out.read_text(encoding="utf-8")) if given.out.exists() else {"rows": []}
    rows: list[dict[str, Any]] = before["rows"]
    known, spent = {(row["name"], row["seed"]) for row in rows}, before.get("about", {}).get("seconds", 0)
    for seed in (None, *SEEDS):
        for name, ensemble in (single(model) if seed is None else arms(model, own[-READS:, :-1], seed)).items():
            if (name, seed) in known:
                continue
            sizes = [size for size in SIZES if size <= len(ensemble)]
            rows += [{"name": name, "seed": seed, **row} for row in judged(model, ensemble, texts, sizes)]
            keep(given.out, rows, spent, words.decode(own[FITS, 1:80]))
            print(f"seed {seed}, {name}: {time.process_time():.0f} s", flush=True)
    table(rows)


def keep(out: Path, rows: list[dict[str, Any]], spent: float, example: str) -> None:
    """Write what is known so far; `spent` are seconds of earlier runs."""
    about = {
        "processor": platform.processor() or platform.machine(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "threads": 1,
        "seconds": round(spent + time.process_time()),
        "date": time.strftime("%Y-%m-%d"),
        "example": example,
    }
    out.write_text(json.dumps({"about": about, "rows": rows}, indent=1), encoding="utf-8")


def table(rows: list[dict[str, Any]]) -> None:
    """The table of README.md: means over seeds, with the spread of the first column."""
    heads = (
        "arm",
        "K",
        "stories nats",
        "after T",
        "ECE",
        "Shakespeare nats",
        "after T",
        "ECE",
        "AUROC entropy",
        "AUROC MI",
    )
    print("|" + "|".join(heads) + "|\n|" + "---|" * len(heads))
    for name, size in dict.fromkeys((row["name"], row["members"]) for row in rows):
        same = [row for row in rows if (row["name"], row["members"]) == (name, size)]
        cells = []
        for kind in ("stories", "shakespeare"):
            for key in ("nats", "scaled_nats", "ece"):
                values = [row[kind][key] for row in same]
                spread = f" ± {statistics.stdev(values):.3f}" if key == "nats" and len(values) > 1 else ""
                cells.append(f"{statistics.mean(values):.3f}{spread}")
        for key in ("entropy", "mutual information"):
            held = [row["auroc"][key] for row in same if key in row["auroc"]]
            cells.append(f"{statistics.mean(held):.3f}" if held else "")
        print("|" + "|".join([name, str(size), *cells]) + "|")


if __name__ == "__main__":
    main()
