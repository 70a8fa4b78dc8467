"""Text to tokens and tokens to windows: the tokenizer of a folder, a network's context, windows that slide over a text.

    window j reads the tokens b_j .. b_j + L - 1        b_j = min(j * stride, T - L)        L = min(context, T)

Each token but the first is predicted once, from L - stride tokens before it or more; those of the first window from all
that stand before them. All windows have one length, so nothing is padded.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pluria.core.errors import CheckpointError
from pluria.store.pretrained import hugging_face, without_bars

IGNORED = -100
"""The target of what is not predicted: padding, and what another window predicts."""

CONTEXTS = ("max_position_embeddings", "n_positions", "max_seq_len", "seq_length")
"""What configurations call the longest sequence a network reads."""


@dataclass(frozen=True, eq=False)
class Windows:
    """Windows of a text: tokens `[W, L]` and targets `[W, L]`, the token after each place or -100."""

    tokens: Tensor
    targets: Tensor

    def __len__(self) -> int:
        return len(self.tokens)

    @property
    def predicted(self) -> int:
        """How many tokens are predicted."""
        return int((self.targets != IGNORED).sum())


def tokenizer_in(folder: str | Path, *, model: nn.Module | None = None, trust: bool = False) -> Any:
    """The tokenizer of a local Hugging Face folder; nothing is downloaded.

    model   the network it is to serve, for `check_vocabulary`
    trust   run the tokenizer's code that comes with the folder

    Raises CheckpointError where the folder has none that can be read, or where the two disagree.
    """
    place, library = Path(folder), hugging_face()
    if not place.is_dir():
        raise CheckpointError(f"{place}: there is no such folder to read a tokenizer from")
    _refuse_code(place, trust)
    try:
        with without_bars(library):
            found = library.AutoTokenizer.from_pretrained(place, local_files_only=True, trust_remote_code=trust)
    except Exception as error:  # which one depends on the kind of tokenizer and on what is missing
        line = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise CheckpointError(f"{place}: the folder has no tokenizer that can be read ({line})") from None
    if model is not None:
        check_vocabulary(found, model, what=str(place))
    return found


def check_vocabulary(tokenizer: Any, model: nn.Module, *, what: str = "the tokenizer") -> None:
    """Raise CheckpointError where a tokenizer knows more tokens than the network's embedding has rows."""
    rows = _rows(model)
    # The largest id counts, not how many there are: vocabularies have gaps.
    largest = max(tokenizer.get_vocab().values(), default=-1)
    if rows is not None and largest >= rows:
        raise CheckpointError(
            f"{what}: tokenizer and network disagree: the tokenizer has token {largest}, and the network's embedding "
            f"has {rows} rows. Take both from one folder"
        )


def tokens_of(tokenizer: Any, text: str) -> Tensor:
    """The tokens of a text, int64 `[T]`, with those that the tokenizer puts around a text.

    Raises ValueError for a text that is empty or has no tokens.
    """
    if not isinstance(text, str):
        raise TypeError(f"a text is wanted, not {type(text).__name__}")
    if not text.strip():
        raise ValueError("the text is empty: give some words")
    # The library warns of texts beyond the context; here windows see to that.
    found = tokenizer(text, verbose=False)["input_ids"]
    if not found:
        raise ValueError(f"the tokenizer makes no tokens of {text[:40]!r}")
    return torch.tensor(found, dtype=torch.int64)


def context_of(model: nn.Module) -> int | None:
    """How many tokens a network reads at once, as its configuration says; None where it does not say."""
    config: Any = getattr(model, "config", None)
    config = config.get_text_config() if hasattr(config, "get_text_config") else config
    known = (getattr(config, name, None) for name in CONTEXTS)
    return next((found for found in known if isinstance(found, int) and found > 0), None)


def windows(tokens: Tensor, *, context: int, stride: int | None = None) -> Windows:
    """Windows of at most `context` tokens over `tokens` `[T]`, each `stride` tokens after the one before it.

    stride   half of the context by default; the least context of a token is context - stride tokens

    Raises ValueError for fewer than two tokens (nothing is predicted), a context below two, and a stride that is not
    in 1..context - 1, where some token would have no context.

    >>> found = windows(torch.arange(7), context=4, stride=2)
    >>> found.tokens.tolist()
    [[0, 1, 2, 3], [2, 3, 4, 5], [3, 4, 5, 6]]
    >>> found.targets.tolist()
    [[1, 2, 3, -100], [-100, 4, 5, -100], [-100, -100, 6, -100]]
    """
    step = max(1, context // 2) if stride is None else stride
    if tokens.ndim != 1 or len(tokens) < 2:
        raise ValueError(f"two tokens or more are wanted, [T], since the first is not predicted; got {[*tokens.shape]}")
    if context < 2 or not 1 <= step < context:
        raise ValueError(
            f"a context has two tokens or more and the stride is in 1..context - 1; got {context} and {step}"
        )
    length = min(context, len(tokens))
    starts = [*range(0, len(tokens) - length, step), len(tokens) - length]
    rows, done = [], 1
    for start in starts:
        place = torch.arange(start + 1, start + length + 1)
        following = tokens[place.clamp(max=len(tokens) - 1)]
        rows.append(torch.where((place >= done) & (place < start + length), following, IGNORED))
        done = start + length
    return Windows(torch.stack([tokens[start : start + length] for start in starts]), torch.stack(rows))


def _rows(model: nn.Module) -> int | None:
    get = getattr(model, "get_input_embeddings", None)
    try:
        weight = getattr(get() if get is not None else None, "weight", None)
    except NotImplementedError:  # transformers' networks of images
        return None
    return len(weight) if isinstance(weight, Tensor) and weight.ndim == 2 else None


def _refuse_code(folder: Path, trust: bool) -> None:
    """A tokenizer that is code; transformers would ask for consent on the terminal."""
    file = folder / "tokenizer_config.json"
    try:
        held = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    except ValueError as error:
        raise CheckpointError(f"{file} is not JSON: {error}") from None
    own = (held.get("auto_map") or {}) if isinstance(held, dict) else {}
    if isinstance(own, dict) and own.get("AutoTokenizer") and not trust:
        raise CheckpointError(
            f"{folder}: the tokenizer is code that comes with the folder ({own['AutoTokenizer']}) and would be run. "
            "Read it, and where you trust it, allow it: trust=True, or --trust on the command line"
        )
