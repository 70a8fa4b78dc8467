"""A text classifier and a vision transformer, trained here: low-precision ensembles against their controls.

    python experiments/language/classify.py data/text --out experiments/language/classify.json

text     is it a name or a word of Shakespeare's, by its letters? A BERT of two layers over letters; the folder holds
         names.txt and tinyshakespeare.txt, and what is in both is left out
images   8 x 8 digits by the zoo's small vision transformer

Half of the rows that no network has seen calibrate, half give the figures. Each seed trains a network of its own and
draws members of its own. Temperatures are fitted on the calibration rows, which compensated members read too.
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import time
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor, nn

import pluria
from pluria.core.params import params_of
from pluria.pool import fit_temperature, mean_probability
from pluria.predict import gather, predict
from pluria.score import auroc, ece, entropy, error, nll
from pluria.zoo import network, read
from pluria.zoo.fit import fit

SEEDS, SIZES, FORMATS = (0, 1, 2), (1, 2, 4, 8, 16), ("int3", "int4", "int5")
LENGTH, EACH = 12, 5000
"""The longest word, and how many names and words there are."""


class Letters(nn.Module):
    """A transformers BERT over letters 1..26, called with tokens `[N, 12]` alone; 0 pads."""

    def __init__(self) -> None:
        super().__init__()
        sizes = {"hidden_size": 48, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4}
        config = transformers.BertConfig(vocab_size=27, max_position_embeddings=LENGTH, num_labels=2, **sizes)
        self.bert = transformers.BertForSequenceClassification(config)

    def forward(self, tokens: Tensor) -> Tensor:
        logits: Tensor = self.bert(input_ids=tokens, attention_mask=(tokens > 0).long()).logits
        return logits


def words(folder: Path) -> tuple[Tensor, Tensor]:
    """Names (1) and words of Shakespeare's (0) of four letters or more, shuffled: tokens `[N, 12]` and kinds `[N]`."""
    texts = [(folder / name).read_text(encoding="utf-8").lower() for name in ("tinyshakespeare.txt", "names.txt")]
    kinds = [set(re.findall(rf"\b[a-z]{{4,{LENGTH}}}\b", text)) for text in texts]
    both = kinds[0] & kinds[1]
    order = torch.Generator().manual_seed(0)
    rows, y = [], []
    for kind, found in enumerate(kinds):
        held = sorted(found - both)
        for i in torch.randperm(len(held), generator=order)[:EACH].tolist():
            rows.append([ord(letter) - ord("a") + 1 for letter in held[i].ljust(LENGTH, "`")])
            y.append(kind)
    shuffled = torch.randperm(len(rows), generator=order)
    return torch.tensor(rows)[shuffled], torch.tensor(y)[shuffled]


def trained(model: nn.Module, x: Tensor, y: Tensor, *, seed: int, epochs: int, rate: float) -> nn.Module:
    """Plain training with a cosine schedule."""
    torch.manual_seed(seed)
    steps = epochs * (len(x) // 64)
    optimiser = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    for _ in range(epochs):
        for part in torch.randperm(len(x))[: len(x) // 64 * 64].view(-1, 64):
            loss = torch.nn.functional.cross_entropy(model(x[part]), y[part])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
    return model.eval()


def judged(model: nn.Module, x: Tensor, y: Tensor, *, seed: int) -> list[dict[str, Any]]:
    """Figures of every arm: even rows calibrate, odd rows give the figures."""
    batches = [(part,) for part in torch.split(x, 256)]
    options: dict[str, Any] = {"members": max(SIZES), "key": seed}
    arms = {"full precision": pluria.single(params_of(model))}
    arms |= {f"{one} nearest": pluria.nearest(model, format=one) for one in FORMATS}
    arms |= {f"{one} stochastic": pluria.low_precision(model, format=one, **options) for one in FORMATS}
    second = pluria.moments(model, [x[::2][:300]])
    arms |= {f"{one} compensated": pluria.compensated(model, second, format=one, **options) for one in FORMATS}
    rows = []
    for name, ensemble in arms.items():
        outputs, _ = gather(predict(model, ensemble, batches))
        for size in (size for size in SIZES if size <= len(ensemble)):
            pooled = mean_probability(outputs[:size])
            temperature = fit_temperature(pooled[::2], y[::2])
            rows.append({"name": name, "members": size, "seed": seed, **figures(pooled[1::2], temperature, y[1::2])})
    return rows


def figures(pooled: Tensor, temperature: Any, y: Tensor) -> dict[str, float]:
    """Scores before and after temperature, and how well entropy finds the wrong rows."""
    scaled = temperature(pooled)
    wrong = pooled.argmax(-1) != y
    return {
        "nll": float(nll(pooled, y).mean()),
        "scaled_nll": float(nll(scaled, y).mean()),
        "error": float(error(pooled, y).mean()),
        "ece": ece(pooled, y),
        "scaled_ece": ece(scaled, y),
        "temperature": temperature.value,
        "auroc_wrong": auroc(entropy(pooled), wrong) if bool(wrong.any()) else 1.0,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--out", type=Path, default=Path("out/classify.json"))
    given = parser.parse_args()
    torch.set_num_threads(1)
    x, y = words(given.folder)
    seen = int(0.6 * len(x))
    train, test = read("digits", split="train"), read("digits", split="test")
    found: dict[str, Any] = {"text": [], "images": []}
    for seed in SEEDS:
        torch.manual_seed(seed)
        model = trained(Letters(), x[:seen], y[:seen], seed=seed, epochs=8, rate=0.002)
        found["text"] += judged(model, x[seen:], y[seen:], seed=seed)
        vit = fit(network("small_vit", dim=48, depth=3), train, epochs=60, batch=64, rate=0.003, seed=seed)
        found["images"] += judged(vit, test.normalise(test.inputs), test.targets, seed=seed)
        about = {"seconds": round(time.process_time()), "torch": torch.__version__, "date": time.strftime("%Y-%m-%d")}
        sizes = {"text": [seen, len(x) - seen], "images": [len(train), len(test)]}
        given.out.write_text(json.dumps({"about": {**about, "rows": sizes}, **found}, indent=1), encoding="utf-8")
        print(f"seed {seed}: {time.process_time():.0f} s", flush=True)
    for kind in ("text", "images"):
        table(kind, found[kind])


def table(kind: str, rows: list[dict[str, Any]]) -> None:
    """The table of README.md: means and standard deviations over seeds."""
    print(f"\n{kind}\n")
    keys = ("nll", "scaled_nll", "error", "ece", "scaled_ece", "auroc_wrong")
    print(f"| arm | K | {' | '.join(keys)} |\n|{'---|' * (2 + len(keys))}")
    for name, size in dict.fromkeys((row["name"], row["members"]) for row in rows):
        same = [row for row in rows if (row["name"], row["members"]) == (name, size)]
        cells = []
        for key in keys:
            values = [row[key] for row in same]
            spread = f" ± {statistics.stdev(values):.3f}" if len(values) > 1 and key in ("nll", "scaled_nll") else ""
            cells.append(f"{statistics.mean(values):.3f}{spread}")
        print(f"| {name} | {size} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
