"""One answer out of several small language models, of one tokenizer and of two, in bits for each byte of text.

    python experiments/language/convert.py data/stories260k --out out/stories260k
    python experiments/language-ensembles/run.py out/stories260k data/text/tinyshakespeare.txt

Networks: "stories", the real one of 260,000 parameters, which has never read Shakespeare, and four INT-4 members of it;
"same", trained here on Shakespeare with its tokenizer; "other", trained here likewise with a tokenizer of its own. The
first nine tenths of Shakespeare train, windows of the rest give figures; every figure stands beside itself after a
temperature, fitted on other windows of the rest. Where two tokenizers meet, the second network
reads the text before each token of the first, tokenized by itself, so nothing of what follows reaches it.
"""

from __future__ import annotations

import argparse
import json
import math
import platform
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from tables import page
from tokenizers import Tokenizer, models, pre_tokenizers, processors, trainers
from torch import Tensor, nn

import pluria
from pluria.language import consistency, map_vocabulary, token_strings, tokenizer_in, union_vocabulary
from pluria.pool import fit_temperature, mean_logit, mean_probability

SEEDS, STEPS, BATCH, LENGTH, WORDS = (0, 1, 2), 250, 16, 64, 256
WINDOWS, FITS, LETTERS, MEMBERS = 24, 8, 160, 4
Bits = tuple[float, float]
Row = tuple[str, str, Bits]
RULES: dict[str, Callable[[Tensor], Tensor]] = {
    "mean": mean_probability,
    "mean logit": mean_logit,
    "consistency": lambda x: consistency(x, top=10),
    "consistency, tokens only": lambda x: consistency(x, top=10, models=False),
    "consistency, members only": lambda x: consistency(x, tokens=None),
}
VETO = "mean logit"
"""Not asked where a map leaves tokens without mass: one member would veto them."""


@dataclass(frozen=True, eq=False)
class Speaker:
    """A network and the tokenizer it was trained with."""

    model: nn.Module
    tokenizer: Any

    def tokens(self, text: str) -> list[int]:
        """The first token, and those of the text."""
        found: list[int] = self.tokenizer(text)["input_ids"] if text else [self.tokenizer.bos_token_id]
        return found


def bpe(text: str) -> Any:
    """A tokenizer of few words, trained on a text; words carry the blank before them."""
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.Metaspace()
    made.train_from_iterator([text], trainers.BpeTrainer(vocab_size=WORDS, special_tokens=["<s>"], show_progress=False))
    made.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    return transformers.PreTrainedTokenizerFast(tokenizer_object=made, bos_token="<s>")


def trained(tokenizer: Any, words: int, tokens: Tensor, *, seed: int) -> Speaker:
    """A small Llama after a few hundred steps on windows of the training text."""
    torch.manual_seed(seed)
    sizes = {"hidden_size": 64, "intermediate_size": 160, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = transformers.LlamaConfig(vocab_size=words, max_position_embeddings=256, tie_word_embeddings=True, **sizes)
    model = transformers.LlamaForCausalLM(config)
    steps = torch.optim.AdamW(model.parameters(), lr=4e-3, weight_decay=0.1)
    rate = torch.optim.lr_scheduler.OneCycleLR(steps, 4e-3, total_steps=STEPS, pct_start=0.1)
    generator = torch.Generator().manual_seed(seed)
    for _ in range(STEPS):
        starts = torch.randint(1, len(tokens) - LENGTH, (BATCH, 1), generator=generator)
        rows = torch.cat([tokens[:1].expand(BATCH, 1), tokens[starts + torch.arange(LENGTH)]], 1)
        loss = nn.functional.cross_entropy(model(input_ids=rows[:, :-1]).logits.flatten(0, 1), rows[:, 1:].flatten())
        steps.zero_grad()
        loss.backward()
        steps.step()
        rate.step()
    return Speaker(model.eval(), tokenizer)


def said(speaker: Speaker, window: str) -> Tensor:
    """Log-probabilities `[T, V]` before every token of a window, by the network of the same tokenizer."""
    rows = torch.tensor([speaker.tokens(window)])
    with torch.no_grad():
        return speaker.model(input_ids=rows[:, :-1]).logits[0].double().log_softmax(-1)


def heard(speaker: Speaker, before: list[str]) -> Tensor:
    """Log-probabilities `[T, V]` of a network's own tokens after each of several texts."""
    rows = [speaker.tokens(text) for text in before]
    longest = max(map(len, rows))
    padded = torch.tensor([row + [0] * (longest - len(row)) for row in rows])  # causal: what follows is not seen
    with torch.no_grad():
        logits = speaker.model(input_ids=padded).logits
    return logits[torch.arange(len(rows)), torch.tensor([len(row) - 1 for row in rows])].double().log_softmax(-1)


@dataclass(frozen=True, eq=False)
class Tables:
    """What every network says of the tokens of one main tokenizer: `[T, V]` by name; others in their own words.

    The first `fit` tokens fit temperatures; `bytes` are those of the rest, which gives figures.
    """

    targets: Tensor
    own: dict[str, Tensor]
    others: dict[str, Tensor]
    bytes: int
    fit: int


def tables(
    main: dict[str, Speaker],
    others: dict[str, Speaker],
    windows: list[str],
    *,
    low: list[nn.Module] | None = None,
    fits: int = 0,
) -> Tables:
    """All tables of one main tokenizer; the first `fits` windows fit temperatures."""
    first = next(iter(main.values()))
    strings = token_strings(first.tokenizer)
    own: dict[str, list[Tensor]] = {}
    far: dict[str, list[Tensor]] = {}
    targets = []
    for window in windows:
        tokens = first.tokens(window)
        targets.append(torch.tensor(tokens[1:]))
        for name, speaker in main.items():
            own.setdefault(name, []).append(said(speaker, window))
        for i, model in enumerate(low or []):
            own.setdefault(f"int4 {i}", []).append(said(Speaker(model, first.tokenizer), window))
        before = ["".join(strings[t] for t in tokens[1:i]).removeprefix(" ") for i in range(1, len(tokens))]
        for name, speaker in others.items():
            far.setdefault(name, []).append(heard(speaker, before))
    joined = ({name: torch.cat(rows) for name, rows in part.items()} for part in (own, far))
    size = sum(len(window.encode()) for window in windows[fits:])
    return Tables(torch.cat(targets), *joined, size, sum(map(len, targets[:fits])))


def bits(log_probs: Tensor, found: Tables) -> Bits:
    """Bits for each byte of the text as it is and after a temperature; infinite where a token was held impossible."""
    seen, rows = log_probs[: found.fit], log_probs[found.fit :]
    y_seen, y = found.targets[: found.fit], found.targets[found.fit :]
    scale = math.log(2) * found.bytes
    plain = -float(rows.gather(-1, y[:, None]).sum()) / scale
    if not len(seen) or not math.isfinite(plain) or not bool(seen.gather(-1, y_seen[:, None]).isfinite().all()):
        return plain, plain
    return plain, -float(fit_temperature(seen, y_seen)(rows).gather(-1, y[:, None]).sum()) / scale


def pools(found: Tables, groups: dict[str, list[Tensor]], *, veto: bool) -> Iterator[Row]:
    for name, rows in groups.items():
        for rule, pool in RULES.items():
            if veto or rule != VETO:
                yield name, rule, bits(pool(torch.stack(rows)), found)


def one_vocabulary(found: Tables) -> list[Row]:
    """Networks alone, and pools of those that share the tokenizer."""
    low = [rows for name, rows in found.own.items() if name.startswith("int4")]
    alone = [(name, "alone", bits(rows, found)) for name, rows in found.own.items()]
    groups = {"same + stories": [found.own["same"], found.own["stories"]]}
    groups |= {"int4 x 4": low, "stories + int4 x 4": [found.own["stories"], *low]}
    return [*alone, *pools(found, groups, veto=True)]


def two_vocabularies(found: Tables, main: str, main_tokenizer: Any, far: dict[str, Any]) -> list[Row]:
    """Pools with networks of another tokenizer, by each map."""
    strings, rows = token_strings(main_tokenizer), []
    for name, tokenizer in far.items():
        source, told = token_strings(tokenizer), found.others[name]
        for rest in ("nearest", "prefix", "drop"):
            sent = map_vocabulary(source, strings, rest=rest, leave_out=["<unk>", "</s>"])(told)
            rows.append((f"{name}, {rest}", "alone", bits(sent, found)))
            rows += pools(found, {f"{main} + {name}, {rest}": [found.own[main], sent]}, veto=False)
        words, (near, other) = union_vocabulary(strings, source)
        both = mean_probability(torch.stack([near(found.own[main]), other(told)]))
        into = Tables(near.to[found.targets], {}, {}, found.bytes, found.fit)
        rows.append((f"{main} + {name}, union of {len(words)}", "mean", bits(both, into)))
    return rows


def members_of(model: nn.Module, seed: int) -> list[nn.Module]:
    """Low-precision members as networks of their own."""
    ensemble = pluria.low_precision(model, format="int4", members=MEMBERS, key=seed)
    made = []
    for member in ensemble.members:
        twin = transformers.LlamaForCausalLM(model.config).eval()
        twin.load_state_dict(ensemble.params(member))
        made.append(twin)
    return made


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("text", type=Path)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("figures.json"))
    given = parser.parse_args()
    torch.set_num_threads(1)
    text = given.text.read_text(encoding="utf-8")
    cut = len(text) * 9 // 10
    rest, gap = text[cut:], (len(text) - cut - LETTERS) // WINDOWS
    windows = [
        rest[i * gap : i * gap + LETTERS].strip()
        for i in torch.randperm(WINDOWS, generator=torch.Generator().manual_seed(0)).tolist()
    ]
    model = pluria.load(given.folder).eval()
    stories = Speaker(model, tokenizer_in(given.folder, model=model))
    own = bpe(text[:cut])
    read = {
        name: torch.tensor(t(text[:cut], verbose=False)["input_ids"])
        for name, t in (("same", stories.tokenizer), ("other", own))
    }
    rows: list[dict[str, Any]] = []
    for seed in SEEDS:
        same = trained(stories.tokenizer, 512, read["same"], seed=seed)
        other = trained(own, len(own), read["other"], seed=seed)
        forth = tables(
            {"stories": stories, "same": same}, {"other": other}, windows, low=members_of(model, seed), fits=FITS
        )
        back = tables({"other": other}, {"stories": stories, "same": same}, windows, fits=FITS)
        found = [("stories", *row) for row in one_vocabulary(forth)]
        found += [("stories", *row) for row in two_vocabularies(forth, "same", stories.tokenizer, {"other": own})]
        found.append(("other", "other", "alone", bits(back.own["other"], back)))
        far = {"same": stories.tokenizer, "stories": stories.tokenizer}
        found += [("other", *row) for row in two_vocabularies(back, "other", own, far)]
        rows += [dict(zip(("tokenizer", "networks", "rule", "bits"), row, strict=True), seed=seed) for row in found]
        print(f"seed {seed}: {time.process_time():.0f} s", flush=True)
    for row in rows:
        row["bits"], row["scaled"] = (round(value, 5) if math.isfinite(value) else None for value in row["bits"])
    keep(given.out, rows, sum(len(window.encode()) for window in windows[FITS:]))
    print(page(rows))


def keep(out: Path, rows: list[dict[str, Any]], size: int) -> None:
    about = {
        "machine": platform.machine(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "seconds": round(time.process_time()),
        "date": time.strftime("%Y-%m-%d"),
        "bytes": size,
    }
    out.write_text(json.dumps({"about": about, "rows": rows}, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
