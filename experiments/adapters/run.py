"""Which adapters, for texts nobody trained on: scores, top-k, averages of params and of probabilities.

    python experiments/language/convert.py data/stories260k --out out/stories260k
    python experiments/adapters/run.py out/stories260k --texts data/text --out experiments/adapters/figures.json

Six LoRA adapters by PEFT (rank 4, all linear layers of the blocks), one for each domain, are trained on a tiny story
teller. Four other domains have windows that scores read, and others that give the figures. A run that was stopped goes
on: seeds that are in --out already are not run again.
"""

from __future__ import annotations

import argparse
import copy
import json
import platform
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import torch
from texts import learned, unseen, version
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.functional import cross_entropy

from pluria.core.adapter import Adapter
from pluria.core.params import Params, params_of
from pluria.core.uncertainty import entropy
from pluria.language import tokenizer_in, tokens_of
from pluria.merge import adapted, entropy_weights, leafwise, linear, prior_weights, sentence_scores, tfidf_scores, top_k
from pluria.store import read_peft
from pluria.store.atomic import replacing
from pluria.store.pretrained import network_in

LENGTH, STEPS, BATCH, RATE, RANK = 128, 100, 8, 3e-3, 4
READ, JUDGED = 16, 24
"""Windows of a new domain that scores read, and that give the figures."""

KS, SEEDS = (1, 2, 3, 6), (0, 1, 2)
TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def windows(tokenizer: Any, text: str) -> Tensor:
    """Windows `[W, LENGTH]`, each behind the token that begins a text."""
    tokens = tokens_of(tokenizer, text)
    start, rest = tokens[:1], tokens[1:]
    rows = rest[: len(rest) // (LENGTH - 1) * (LENGTH - 1)].view(-1, LENGTH - 1)
    return torch.cat([start.expand(len(rows), 1), rows], 1)


def trained(model: nn.Module, rows: Tensor, seed: int, steps: int = STEPS) -> Adapter:
    """A LoRA adapter, trained and stored by PEFT and read back."""
    import peft

    with torch.random.fork_rng():
        torch.manual_seed(seed)
        config = peft.LoraConfig(r=RANK, lora_alpha=2 * RANK, target_modules=TARGETS)
        tuned: Any = peft.get_peft_model(copy.deepcopy(model), config).train()  # type: ignore[arg-type]
    draw = torch.Generator().manual_seed(seed)
    stepper = torch.optim.AdamW([p for p in tuned.parameters() if p.requires_grad], lr=RATE)
    for _ in range(steps):
        batch = rows[torch.randint(len(rows), (BATCH,), generator=draw)]
        stepper.zero_grad()
        loss = cross_entropy(tuned(batch).logits[:, :-1].flatten(0, 1), batch[:, 1:].flatten())
        torch.autograd.backward(loss)
        stepper.step()
    with tempfile.TemporaryDirectory() as folder:
        tuned.save_pretrained(folder)
        return read_peft(folder)


def told(model: nn.Module, params: Params, rows: Tensor) -> tuple[Tensor, Tensor]:
    """The log-probability of each token `[W, L - 1]`, and the mean entropy of all."""
    with torch.no_grad():
        logs = functional_call(model, dict(params), (rows,)).logits[:, :-1].double().log_softmax(-1)
    return logs.gather(-1, rows[:, 1:, None]).squeeze(-1), entropy(logs).mean()


def compositions(scores: Mapping[str, Tensor], count: int) -> Iterator[tuple[str, int, Tensor]]:
    """(score, k, weights), the k best of each score."""
    for name, score in scores.items():
        for k in [k for k in KS if k <= count]:
            if name != "uniform" or k == count:
                yield name, k, top_k(score, k)


def judged(
    model: nn.Module, tokenizer: Any, adapters: Mapping[str, Adapter], sources: Mapping[str, str],
    new: Mapping[str, str], encode: Any = None,
) -> list[dict[str, Any]]:  # fmt: skip
    """NLL for each token of every composition on every new domain."""
    base, found = params_of(model), list[dict[str, Any]]()
    ensemble = adapted(base, list(adapters.values()))
    members = list(ensemble)
    parts = [_pieces(text) for text in sources.values()]
    for domain, text in new.items():
        rows = windows(tokenizer, text)
        read, judge = rows[:READ], rows[READ : READ + JUDGED]
        texts = [tokenizer.decode(row, skip_special_tokens=True) for row in read]
        on_read = [told(model, params, read) for params in members]
        logs = torch.stack([told(model, params, judge)[0] for params in members])
        scores = {
            "uniform": torch.ones(len(members)),
            "tf-idf": tfidf_scores(parts, texts),
            "entropy": entropy_weights(torch.stack([unsure for _, unsure in on_read])),
            "prior": prior_weights(torch.stack([likely.sum(1) for likely, _ in on_read])),
        }
        if encode is not None:
            scores["sentences"] = sentence_scores(parts, texts, encode)
        found.append({"domain": domain, "score": "no adapter", "nll": -float(told(model, base, judge)[0].mean())})
        found += [
            {"domain": domain, "score": "one adapter", "of": name, "nll": -float(own.mean())}
            for name, own in zip(adapters, logs, strict=True)
        ]
        for score, k, weights in compositions(scores, len(members)):
            average = told(model, leafwise(ensemble.reweight(weights), linear()), judge)[0]
            pooled = (logs + weights.log()[:, None, None]).logsumexp(0)
            row = {"domain": domain, "score": score, "k": k, "weights": [round(w, 4) for w in weights.tolist()]}
            found.append({**row, "average": -float(average.mean()), "ensemble": -float(pooled.mean())})
    return found


def encoder_in(folder: Path) -> Any:
    """Texts to vectors by a sentence encoder's folder: the mean of its last layer over the tokens."""
    import transformers

    words, network = transformers.AutoTokenizer.from_pretrained(folder), transformers.AutoModel.from_pretrained(folder)
    network.eval()

    @cache
    def vector(text: str) -> Tensor:
        with torch.no_grad():
            last = network(**words(text, truncation=True, max_length=256, return_tensors="pt")).last_hidden_state
        return last[0].mean(0)  # type: ignore[no-any-return]

    return lambda texts: torch.stack([vector(text) for text in texts])


def _pieces(text: str, size: int = 300, count: int = 100) -> Sequence[str]:
    """Up to `count` pieces of a text, spread over it."""
    step = max(size, len(text) // count)
    return [text[start : start + size] for start in range(0, len(text) - size, step)][:count]


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("model", type=Path)
    options.add_argument("--texts", type=Path, required=True)
    options.add_argument("--encoder", type=Path, help="the folder of a sentence encoder")
    options.add_argument("--out", type=Path, required=True)
    given = options.parse_args()
    model = network_in(given.model)
    tokenizer = tokenizer_in(given.model, model=model)
    sources, new = learned(given.texts), unseen(given.texts)
    encode = encoder_in(given.encoder) if given.encoder else None
    held = json.loads(given.out.read_text()) if given.out.exists() else {"seeds": {}}
    held |= {"texts": version(), "torch": torch.__version__, "machine": platform.machine(), "sentences": bool(encode)}
    for seed in SEEDS:
        if str(seed) in held["seeds"]:
            continue
        adapters = {name: trained(model, windows(tokenizer, text), seed) for name, text in sources.items()}
        held["seeds"][str(seed)] = judged(model, tokenizer, adapters, sources, new, encode)
        with replacing(given.out) as file:
            file.write(json.dumps(held, indent=1).encode() + b"\n")
        print(f"seed {seed} done", flush=True)


if __name__ == "__main__":
    main()
