"""Text that an ensemble writes: at each token members' probabilities, or logits, are averaged, and one token is chosen.

    p(. | tokens so far) = sum_k w_k p_k(. | tokens so far)          next token = argmax p, or drawn from p

Every member reads the one text that the ensemble writes, with a cache of keys and values of its own. So K equal members
write what the network writes. Source: Lakshminarayanan, Pritzel and Blundell, NeurIPS 2017 (the average).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from pluria.core.calling import place
from pluria.core.ensemble import Ensemble
from pluria.core.model import working_copy
from pluria.language.average import Rule, entropy
from pluria.language.pieces import pieces_of
from pluria.language.ready import checked_prompt
from pluria.language.sampling import Sampling
from pluria.language.steps import Backend, Steps
from pluria.numbers.key import Key
from pluria.pool.average import mean_logit, mean_probability


@dataclass(frozen=True, eq=False)
class Generated:
    """What was written, and what is known of each token; T tokens, float64.

    prompt, tokens     int64 `[P]` and `[T]`, the token that ended the text included
    prompt_text, pieces   the text of the prompt, and what each token adds to it; numbers where there is no tokenizer
    log_probs          pooled log-probability of the token, before temperature, top-k and top-p `[T]`
    agreement          weight of the members whose most probable token it is `[T]`
    mutual_information  mean KL(p_k || pooled) in nats; pooled by logits: mean KL(pooled || p_k) `[T]`
    members, stopped   how many members counted; whether a token ended the text before it was as long as allowed
    """

    prompt: Tensor
    tokens: Tensor
    prompt_text: str
    pieces: tuple[str, ...]
    log_probs: Tensor
    agreement: Tensor
    mutual_information: Tensor
    members: int
    stopped: bool

    @property
    def text(self) -> str:
        """What was written after the prompt."""
        return "".join(self.pieces)


def generate(
    model: nn.Module,
    ensemble: Ensemble,
    prompt: str | Tensor | Sequence[int],
    *,
    tokenizer: Any = None,
    max_new_tokens: int = 32,
    temperature: float = 0.0,
    top_k: int | None = None,
    top_p: float | None = None,
    pool: Rule = "probability",
    backend: Backend = "loop",
    stop: Iterable[int] | None = None,
    available: int | None = None,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
    seed: int = 0,
) -> Generated:
    """Write on from a prompt, one prompt at a time; the model itself is not touched.

    prompt        a text with the `tokenizer` that reads it, or tokens `[P]`
    max_new_tokens   tokens to write at most
    temperature   0 takes the most probable token each time; above 0 a token is drawn, from the `top_k` most probable
                  ones or from the fewest that have probability `top_p` together where these are given
    pool          "probability" or "logit": what is averaged at each token
    backend       "loop": one working copy, each member is written into it for each token; "side_by_side": what differs
                  between members is held for all of them, and a token costs K steps of the network and nothing else
    stop          tokens that end the text, the network's own by default; () for none
    available     bytes that members may take; what is free by default
    device, dtype   of the working copy
    seed          of what is drawn: the same seed gives the same text

    Raises ValueError for a network that is no causal language model with a cache of keys and values (encoder-decoders
    and masked models are none), a prompt that is empty, has tokens that are no words, or leaves no room in the context,
    a bad option, and more members than memory holds; CheckpointError where tokenizer and network, or ensemble and
    network, disagree.
    """
    how = Sampling(temperature, top_k, top_p)
    counted = ensemble.take([i for i, weight in enumerate(ensemble.weights.tolist()) if weight > 0])
    start = checked_prompt(
        model, counted, prompt, tokenizer=tokenizer, max_new_tokens=max_new_tokens, pool=pool, backend=backend,
        available=available, device=device, dtype=dtype,
    )  # fmt: skip
    twin = working_copy(model, device=place(model) if device is None else device, dtype=dtype)
    steps = Steps(twin, counted, backend)
    ends = frozenset(_ends(model) if stop is None else stop)
    chooser = torch.Generator().manual_seed(Key(seed).seed)
    rows = list(_rows(steps, start, counted.weights, pool, how, ends, max_new_tokens, chooser))
    return _together(rows, start, tokenizer, len(counted), ends)


Row = tuple[int, float, float, float]
"""A token, its pooled log-probability, the agreement on it, the mutual information."""


def _rows(
    steps: Steps,
    start: Tensor,
    weights: Tensor,
    pool: Rule,
    how: Sampling,
    ends: frozenset[int],
    most: int,
    chooser: torch.Generator,
) -> Iterator[Row]:
    tokens = start[None]
    for _ in range(most):
        words = steps(tokens).log_softmax(-1)
        pooled = pooled_words(words, weights, pool)
        chosen = how.choose(pooled, chooser)
        same = float(weights[words.argmax(-1) == chosen].sum())
        yield chosen, float(pooled[chosen]), same, _apart(words, pooled, weights, pool)
        if chosen in ends:
            return
        tokens = torch.tensor([[chosen]])


def _together(rows: list[Row], start: Tensor, tokenizer: Any, members: int, ends: frozenset[int]) -> Generated:
    tokens, *figures = (list(column) for column in zip(*rows, strict=True))
    log_probs, agreement, apart = (torch.tensor(column, dtype=torch.float64) for column in figures)
    before, pieces = pieces_of(tokenizer, start.tolist(), tokens)
    stopped = tokens[-1] in ends
    return Generated(start, torch.tensor(tokens), before, pieces, log_probs, agreement, apart, members, stopped)


def pooled_words(words: Tensor, weights: Tensor, pool: Rule) -> Tensor:
    """Pooled log-probabilities `[V]` of the members' `[K, V]`."""
    return (mean_probability if pool == "probability" else mean_logit)(words[:, None], weights)[0]


def _apart(words: Tensor, pooled: Tensor, weights: Tensor, pool: Rule) -> float:
    """How far members are apart, in nats."""
    if pool == "probability":
        found = entropy(pooled[None])[0] - weights @ entropy(words)
    else:
        top = int(pooled.argmax())  # the ambiguity is the same whatever the token is
        found = pooled[top] - weights @ words[:, top]
    return max(0.0, float(found))  # below zero by rounding only


def _ends(model: nn.Module) -> list[int]:
    """The tokens that end a text, as the network's settings say."""
    settings = (getattr(model, "generation_config", None), model.config)
    found: Any = next((end for held in settings if (end := getattr(held, "eos_token_id", None)) is not None), [])
    return [found] if isinstance(found, int) else [int(end) for end in found]
