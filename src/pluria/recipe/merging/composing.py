"""What adapters in folders should count on texts that none was trained on: a file of texts, one a line, to weights.

words, sentences    the new texts against some texts of each adapter's own domain
entropy, prior      the new texts as each adapter's network reads them
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.func import functional_call

from pluria.core.params import params_of
from pluria.language import context_of, tokenizer_in
from pluria.language.average import entropy
from pluria.merge.adapters import add_adapters
from pluria.merge.adding import adding
from pluria.merge.rule import Rules
from pluria.merge.zeroshot import Encoder, entropy_weights, prior_weights, sentence_scores, tfidf_scores, top_k
from pluria.store.peft import read_peft
from pluria.store.pretrained import hugging_face, network_in

SCORES = ("words", "sentences", "entropy", "prior")


def adapted(
    adapters: Sequence[str],
    base: str,
    texts: str,
    *,
    by: str = "words",
    domains: Sequence[str] = (),
    encoder: str | None = None,
    top: int | None = None,
    uniform: bool = False,
) -> Rules:
    """Adapters in folders, averaged by weights `[K]` of sum one; see `pluria.merge.top_k` for `top` and `uniform`.

    texts     a file of the new texts, one a line
    by        "words" (tf-idf), "sentences", "entropy" or "prior"
    domains   a file of texts for each adapter, for the first two
    encoder   the folder of a sentence encoder, for the second

    The last two run the base, a Hugging Face folder with a tokenizer, once for each adapter and text. Raises ValueError
    for another score, and for what it needs and is not given.
    """
    if by not in SCORES:
        raise ValueError(f"adapters are weighted by {', '.join(SCORES)}; got {by!r}")
    new = _lines(texts)
    if by in ("words", "sentences"):
        if isinstance(domains, str) or len(domains) != len(adapters):
            raise ValueError(f"by={by} compares texts: give {len(adapters)} files as `domains`; got {domains!r}")
        own = [_lines(path) for path in domains]
        scores = tfidf_scores(own, new) if by == "words" else sentence_scores(own, new, _encoder(encoder))
    else:
        likely, unsure = _read_by(adapters, base, new)
        scores = entropy_weights(unsure) if by == "entropy" else prior_weights(likely)
    weights = top_k(scores, len(adapters) if top is None else top, uniform=uniform)
    return adding([read_peft(folder) for folder in adapters], weights.tolist())


def _lines(path: str) -> list[str]:
    found = [line.strip() for line in Path(path).read_text(encoding="utf-8").splitlines() if line.strip()]
    if not found:
        raise ValueError(f"{path} has no texts; write one a line")
    return found


def _encoder(folder: str | None) -> Encoder:
    """Texts to vectors by a sentence encoder's folder: the mean of its last layer over the tokens."""
    if folder is None:
        raise ValueError("by=sentences needs the folder of a sentence encoder as `encoder`; by=words needs none")
    library = hugging_face()
    words = library.AutoTokenizer.from_pretrained(folder, local_files_only=True)
    network = library.AutoModel.from_pretrained(folder, local_files_only=True).eval()

    def vector(text: str) -> Tensor:
        with torch.no_grad():
            last: Tensor = network(
                **words(text, truncation=True, max_length=256, return_tensors="pt")
            ).last_hidden_state
        return last[0].mean(0)

    return lambda texts: torch.stack([vector(text) for text in texts])


def _read_by(adapters: Sequence[str], base: str, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
    """Log-likelihoods `[K, N]` of texts under the base with each adapter, and mean entropies of all tokens `[K]`."""
    model = network_in(base)
    words, params = tokenizer_in(base, model=model), params_of(model)
    rows = [_tokens(words, text, context_of(model)) for text in texts]
    likely, unsure = [], []
    for folder in adapters:
        held = add_adapters(params, [read_peft(folder)])
        told = [_told(model, held, row) for row in rows]
        likely.append(torch.stack([logs.sum() for logs, _ in told]))
        unsure.append(torch.cat([own for _, own in told]).mean())
    return torch.stack(likely), torch.stack(unsure)


def _tokens(words: Any, text: str, limit: int | None) -> Tensor:
    row = torch.tensor(words(text)["input_ids"][:limit])
    if len(row) < 2:
        raise ValueError(f"the text {text!r} is one token or none, so nothing is predicted; leave it out")
    return row


def _told(model: torch.nn.Module, params: Any, row: Tensor) -> tuple[Tensor, Tensor]:
    """The log-probability of each token but the first, and the entropies before them, `[L - 1]`."""
    with torch.no_grad():
        logs = functional_call(model, dict(params), (row[None],)).logits[0, :-1].double().log_softmax(-1)
    return logs.gather(-1, row[1:, None]).squeeze(-1), entropy(logs)
