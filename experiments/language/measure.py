"""Low-precision ensembles of a small language model: perplexity, calibration, and whether text is of a foreign kind.

    python experiments/language/measure.py out/stories260k --foreign data/text/tinyshakespeare.txt

In-domain text is told by the full-precision network itself, sampled at temperature 1 with a fixed seed, so nothing can
have a lower expected perplexity on it than the network. Out-of-domain text is Shakespeare. Every window is 128 tokens
behind <s>. Temperatures are fitted on windows of the same kind of text that give no figures; compensated members read
in-domain windows that give none either. Seeds are those of the members. An arm whose figures are in --out already is
not run again, so a run that was stopped goes on.
"""

from __future__ import annotations

import argparse
import itertools
import json
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import partial
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
from pluria.store.atomic import replacing

LENGTH, FITS, JUDGES, READS = 128, 8, 48, 16
"""Tokens of a window; windows that fit a temperature, give figures, and are read for compensation."""

PIECE = 16
"""Tokens of a piece: foreign text is looked for among pieces, too."""

SIZES, SEEDS = (1, 2, 4, 8, 16), (0, 1)
FORMATS = ("int3", "int4", "int5", "int6", "int7", "int8")
SCALES = {"channel": "", 16: ", groups of 16", 4: ", groups of 4"}
"""How many inputs share a scale, and what that adds to the name of an arm."""

ODD, LEFT = "*.down_proj.weight", 4
"""Matrices whose 172 inputs are no multiple of 16, and the groups that they have in its place."""


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

    said = {
        "entropy": entropy,
        "mutual information": entropy - inner,
        "disagreement": 1 - agree,
        "nats": nll(pooled, y),
        "scaled": nll(scaled, y),
    }
    return {
        "nats": float(nll(pooled, y).mean()),
        "scaled_nats": float(nll(scaled, y).mean()),
        "temperature": temperature.value,
        "member_nats": -float(member.mean()),
        "ece": ece(pooled, y),
        "scaled_ece": ece(scaled, y),
        "mutual_information": float((entropy - inner).mean()),
        "agreement": float(agree.double().mean()),
        "windows": {name: values.double().reshape(JUDGES, -1).mean(1) for name, values in said.items()},
        "pieces": {name: values.double().reshape(-1, PIECE).mean(1) for name, values in said.items()},
    }


Figures = dict[str, dict[int, dict[str, Any]]]
"""Of each kind of text and each number of members."""


def judged(found: Figures, full: Figures) -> list[dict[str, Any]]:
    """Rows for every K, with the AUROC of foreign text among the network's own, by windows and by pieces of them."""
    rows = []
    for size in found["stories"]:
        row: dict[str, Any] = {"members": size}
        for kind, by_size in found.items():
            figures = {name: value for name, value in by_size[size].items() if name not in ("windows", "pieces")}
            row[kind] = figures | _gap_errors(by_size[size]["windows"], full[kind][1]["windows"])
        names = ("entropy", "nats", *(("mutual information", "disagreement") if size > 1 else ()))
        for part in ("windows", "pieces"):
            own, foreign = (found[kind][size][part] for kind in ("stories", "shakespeare"))
            positive = torch.arange(2 * len(own["nats"])) >= len(own["nats"])
            row[f"auroc_{part}"] = {name: auroc(torch.cat([own[name], foreign[name]]), positive) for name in names}
        rows.append(row)
    return rows


def _gap_errors(own: dict[str, Tensor], full: dict[str, Tensor]) -> dict[str, float]:
    """Standard errors, over windows, of the gap to full precision before and after temperature."""
    return {f"{name}_gap_error": float((own[name] - full[name]).std()) / JUDGES**0.5 for name in ("nats", "scaled")}


Make = Callable[[], Ensemble]


def arms(model: nn.Module, reads: Tensor, seed: int) -> dict[str, Make]:
    """How every ensemble of one seed is made, by its name."""
    options: dict[str, Any] = {"members": max(SIZES), "key": seed}
    held = [{"input_ids": reads}]
    ways = {
        "stochastic": partial(pluria.low_precision, model, **options),
        "compensated": partial(pluria.compensated, model, pluria.moments(model, held), **options),
    }
    found = crossed(ways)
    for one in FORMATS:
        options |= {"format": one, "follow": "reference"}
        found[f"{one} compensated, block by block"] = partial(pluria.compensated, model, held, **options)
    return found


def single(model: nn.Module, reads: Tensor) -> dict[str, Make]:
    """The controls that have no seed: nearest rounding, plainly and with feedback."""
    second = pluria.moments(model, [{"input_ids": reads}])
    return crossed(
        {"nearest": partial(pluria.nearest, model), "nearest with feedback": partial(pluria.gptq, model, second)}
    )


def crossed(ways: Mapping[str, Callable[..., Ensemble]]) -> dict[str, Make]:
    """Every way in every format with all scales."""
    return {
        f"{one} {way}{name}": partial(with_scales, make, scale, format=one)
        for one, (scale, name), (way, make) in itertools.product(FORMATS, SCALES.items(), ways.items())
    }


def with_scales(make: Callable[..., Ensemble], scale: Any, **options: Any) -> Ensemble:
    """An ensemble with a scale for so many inputs; beside groups of 16, `ODD` matrices have groups of `LEFT`."""
    if scale != 16:
        return make(granularity=scale, **options)
    most = make(granularity=scale, where=[f"!{ODD}"], **options)
    rest = make(granularity=LEFT, where=[ODD], **options)
    return most.with_families({name: one for name, one in rest.families.items() if fnmatchcase(name, ODD)})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--foreign", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("figures.json"))
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
    stored = json.loads(given.out.read_text(encoding="utf-8")) if given.out.exists() else {"rows": []}
    run(model, texts, own[-READS:, :-1], stored, given.out, words.decode(own[FITS, 1:80]))


def run(
    model: nn.Module, texts: dict[str, Text], reads: Tensor, stored: dict[str, Any], out: Path, example: str
) -> None:
    """Every arm that is not in the file yet, written as soon as it is known."""
    rows: list[dict[str, Any]] = stored["rows"]
    known, spent = {(row["name"], row["seed"]) for row in rows}, stored.get("about", {}).get("seconds", 0)
    full = {kind: scored(model, pluria.single(params_of(model)), text, [1]) for kind, text in texts.items()}
    for seed in (None, *SEEDS):
        makes: dict[str, Make] = single(model, reads) if seed is None else arms(model, reads, seed)
        if seed is None:
            makes = {"full precision": lambda: pluria.single(params_of(model)), **makes}
        for name, make in makes.items():
            if (name, seed) in known:
                continue
            ensemble = make()
            sizes = [size for size in SIZES if size <= len(ensemble)]
            found = {kind: scored(model, ensemble, text, sizes) for kind, text in texts.items()}
            rows += [{"name": name, "seed": seed, **row} for row in judged(found, full)]
            keep(out, rows, spent, example)
            print(f"seed {seed}, {name}: {time.process_time():.0f} s", flush=True)


def keep(out: Path, rows: list[dict[str, Any]], spent: float, example: str) -> None:
    """Write what is known so far, a row a line; `spent` are seconds of earlier runs."""
    about = {
        "machine": machine(),
        "windows": {"fit": FITS, "judge": JUDGES, "read": READS, "tokens": LENGTH},
        "seconds": round(spent + time.process_time()),
        "example": example,
    }
    lines = ",\n".join(json.dumps(rounded(row)) for row in rows)
    with replacing(out) as file:
        file.write(f'{{"about": {json.dumps(about)},\n"rows": [\n{lines}\n]}}\n'.encode())


def machine() -> dict[str, Any]:
    """What the figures were computed on."""
    return {
        "processor": platform.processor() or platform.machine(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "date": time.strftime("%Y-%m-%d"),
    }


def rounded(value: Any) -> Any:
    """Floats with six digits behind the point, more than any figure is known to."""
    if isinstance(value, dict):
        return {name: rounded(one) for name, one in value.items()}
    return round(value, 6) if isinstance(value, float) else value


if __name__ == "__main__":
    main()
