"""Text that an ensemble writes: at each token members' probabilities, or logits, are averaged, and one token is chosen.

    p(. | tokens so far) = sum_k w_k p_k(. | tokens so far)          next token = argmax p, or drawn from p

Every member reads the one text that the ensemble writes, with a cache of keys and values of its own, for all prompts of
a batch. So K equal members write what the network writes. Source: Lakshminarayanan, Pritzel and Blundell, NeurIPS 2017
(the average).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from pluria.core.calling import place
from pluria.core.ensemble import Ensemble
from pluria.core.model import working_copy
from pluria.language.average import Rule, entropy
from pluria.language.pieces import pieces_of
from pluria.language.ready import Asked, Prompt, checked
from pluria.language.rows import Unlike
from pluria.language.sampling import Sampling
from pluria.language.steps import Backend, Steps
from pluria.numbers.key import Key
from pluria.pool.average import mean_logit, mean_probability


@dataclass(frozen=True, eq=False)
class Generated:
    """What was written, and what is known of each token; T tokens, float64.

    prompt, tokens     int64 `[P]` and `[T]`, the token that ended the text included
    prompt_text, pieces   the text of the prompt, and what each token adds to it; numbers where there is no tokenizer.
                       Behind an encoder the text is one of its own, and the prompt's ends with its line
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
    prompt: Prompt,
    *,
    tokenizer: Any = None,
    max_new_tokens: int = 32,
    temperature: float = 0.0,
    top_k: int | None = None,
    top_p: float | None = None,
    pool: Rule = "probability",
    backend: Asked = "auto",
    stop: Iterable[int] | None = None,
    available: int | None = None,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
    seed: int = 0,
) -> Generated:
    """Write on from a prompt, or behind an encoder write what answers it; the model itself is not touched.

    prompt        a text with the `tokenizer` that reads it, or tokens `[P]`
    max_new_tokens   tokens to write at most
    temperature   0 takes the most probable token each time; above 0 a token is drawn, from the `top_k` most probable
                  ones or from the fewest that have probability `top_p` together where these are given
    pool          "probability" or "logit": what is averaged at each token
    backend       "loop": one working copy, each member is written into it for each token; "side_by_side": what differs
                  between members is held for all of them, and a token costs K steps of the network and nothing else;
                  "rows": members are rows of one batch, whose weights are read once for eight members, in integer
                  formats; "auto": the last of these that can be had in at most half of what is free
    stop          tokens that end the text, the network's own by default; () for none
    available     bytes that members may take; what is free by default
    device, dtype   of the working copy
    seed          of what is drawn: the same seed gives the same text

    Raises ValueError for a network that is no causal language model and no encoder-decoder, or keeps no keys and
    values, a prompt that is empty, has tokens that are no words, or leaves no room in the context, a bad option, and
    more members than memory holds; CheckpointError where tokenizer and network, or ensemble and network, disagree.
    """
    (found,) = generate_batch(
        model, ensemble, [prompt], tokenizer=tokenizer, max_new_tokens=max_new_tokens, temperature=temperature,
        top_k=top_k, top_p=top_p, pool=pool, backend=backend, stop=stop, available=available, device=device,
        dtype=dtype, seed=seed,
    )  # fmt: skip
    return found


def generate_batch(
    model: nn.Module,
    ensemble: Ensemble,
    prompts: Sequence[Prompt],
    *,
    tokenizer: Any = None,
    max_new_tokens: int = 32,
    temperature: float = 0.0,
    top_k: int | None = None,
    top_p: float | None = None,
    pool: Rule = "probability",
    backend: Asked = "auto",
    stop: Iterable[int] | None = None,
    available: int | None = None,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
    seed: int = 0,
) -> list[Generated]:
    """Write on from several prompts at once, one cache for each member; every text is what its prompt alone gives.

    Shorter prompts are padded where the network does not look: in front, behind for an encoder. Prompt number i is
    drawn with `seed` + i. All else as for `generate`.
    """
    how = Sampling(temperature, top_k, top_p)
    counted = ensemble.take([i for i, weight in enumerate(ensemble.weights.tolist()) if weight > 0])
    ready = checked(
        model, counted, prompts, tokenizer=tokenizer, max_new_tokens=max_new_tokens, pool=pool, backend=backend,
        available=available, device=device, dtype=dtype,
    )  # fmt: skip
    ends = frozenset(_ends(model) if stop is None else stop)
    first = Key(seed).seed

    def written(way: Backend) -> tuple[list[list[Row]], bool]:
        twin = working_copy(model, device=place(model) if device is None else device, dtype=dtype)
        steps = Steps(twin, counted, way)
        choosers = [torch.Generator().manual_seed((first + i) % 2**64) for i in range(len(ready.prompts))]
        texts = _written(steps, ready.prompts, counted.weights, pool, how, choosers, ends, max_new_tokens)
        return texts, steps.start is not None

    try:
        texts, apart = written(ready.backend)
    except Unlike:
        if backend != "auto":
            raise
        texts, apart = written("loop")
    return [
        _together(rows, start, tokenizer, len(counted), ends, apart=apart)
        for rows, start in zip(texts, ready.prompts, strict=True)
    ]


Row = tuple[int, float, float, float]
"""A token, its pooled log-probability, the agreement on it, the mutual information."""


def _written(
    steps: Steps,
    prompts: Sequence[Tensor],
    weights: Tensor,
    pool: Rule,
    how: Sampling,
    choosers: Sequence[torch.Generator],
    ends: frozenset[int],
    most: int,
) -> list[list[Row]]:
    """The rows of every text. One that has ended is read on with the others, and nothing more is taken of it."""
    tokens, mask = padded(prompts, front=steps.start is None)
    texts: list[list[Row]] = [[] for _ in prompts]
    for _ in range(most):
        words = steps(tokens, mask).log_softmax(-1)
        pooled = pooled_words(words, weights, pool)
        for i, text in enumerate(texts):
            if not text or text[-1][0] not in ends:
                text.append(_row(words[:, i], pooled[i], weights, pool, how.choose(pooled[i], choosers[i])))
        if all(text[-1][0] in ends for text in texts):
            break
        tokens, mask = torch.tensor([[text[-1][0]] for text in texts]), None
    return texts


def _row(words: Tensor, pooled: Tensor, weights: Tensor, pool: Rule, chosen: int) -> Row:
    """What members `[K, V]` and their pool `[V]` say of a token."""
    same = float(weights[words.argmax(-1) == chosen].sum())
    return chosen, float(pooled[chosen]), same, _apart(words, pooled, weights, pool)


def padded(prompts: Sequence[Tensor], *, front: bool) -> tuple[Tensor, Tensor | None]:
    """Prompts as tokens `[B, P]`, padded in front or behind, and a mask that is 0 there; None where nothing is.

    >>> padded([torch.tensor([5, 6, 7]), torch.tensor([8])], front=True)
    (tensor([[5, 6, 7],
            [0, 0, 8]]), tensor([[1, 1, 1],
            [0, 0, 1]]))
    """
    pad = partial(pad_sequence, batch_first=True, padding_side="left" if front else "right")
    mask = pad([torch.ones_like(prompt) for prompt in prompts])
    return pad(list(prompts)), None if bool(mask.all()) else mask


def _together(
    rows: list[Row], start: Tensor, tokenizer: Any, members: int, ends: frozenset[int], *, apart: bool
) -> Generated:
    tokens, *figures = (list(column) for column in zip(*rows, strict=True))
    log_probs, agreement, distance = (torch.tensor(column, dtype=torch.float64) for column in figures)
    before, pieces = pieces_of(tokenizer, start.tolist(), tokens)
    if apart:  # a text of its own, not the prompt's end
        before, pieces = before + "\n", pieces_of(tokenizer, [], tokens)[1]
    stopped = tokens[-1] in ends
    return Generated(start, torch.tensor(tokens), before, pieces, log_probs, agreement, distance, members, stopped)


def pooled_words(words: Tensor, weights: Tensor, pool: Rule) -> Tensor:
    """Pooled log-probabilities `[B, V]` of the members' `[K, B, V]`."""
    return (mean_probability if pool == "probability" else mean_logit)(words, weights)


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
