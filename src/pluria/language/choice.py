"""Multiple choice by likelihood: which of several continuations an ensemble finds most likely after a context.

    score   s_j = sum_t log p(token t of continuation j | what stands before it)        p pooled over members
    acc     argmax_j s_j                acc_norm   argmax_j s_j / characters of continuation j

as lm-evaluation-harness counts both; the space in front of a continuation is not counted. Calibration is that of
softmax_j(s_j), or of the normalised scores.
Source: Brown et al., NeurIPS 2020, section 2.4; Gao et al., lm-evaluation-harness.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from pluria.core.ensemble import Ensemble
from pluria.language.average import Rule, averages, pooled_log_probs
from pluria.language.tokens import IGNORED, check_vocabulary, context_of
from pluria.score.calibration import top_reliability


@dataclass(frozen=True)
class Question:
    """A context, continuations to choose from (put behind it as they are, space and all), and the right one's place."""

    context: str
    choices: tuple[str, ...]
    answer: int


@dataclass(frozen=True, eq=False)
class Choices:
    """Log-likelihoods of every continuation `[Q][choices]`, float64, and figures over the questions."""

    scores: tuple[Tensor, ...]
    lengths: tuple[Tensor, ...]
    answers: Tensor

    @property
    def accuracy(self) -> float:
        """Share of questions whose right continuation has the largest log-likelihood (acc)."""
        return self._accuracy(self.scores)

    @property
    def normed_accuracy(self) -> float:
        """The same for log-likelihoods divided by the continuations' characters (acc_norm)."""
        return self._accuracy(self.normed)

    @property
    def normed(self) -> tuple[Tensor, ...]:
        """Log-likelihoods divided by the continuations' length in characters."""
        return tuple(scores / length for scores, length in zip(self.scores, self.lengths, strict=True))

    def ece(self, *, normed: bool = False) -> float:
        """Calibration error of the chosen continuation's share of likelihood, 15 bins of equal width."""
        scores = self.normed if normed else self.scores
        shares = torch.stack([one.softmax(0).max() for one in scores])
        return top_reliability(shares.clamp(max=1.0), self._right(scores)).ece

    def nll(self, *, normed: bool = False) -> float:
        """Mean of -log of the right continuation's share of likelihood, in nats."""
        scores = self.normed if normed else self.scores
        right = [one.log_softmax(0)[answer] for one, answer in zip(scores, self.answers.tolist(), strict=True)]
        return -float(torch.stack(right).mean())

    def _right(self, scores: Sequence[Tensor]) -> Tensor:
        return torch.stack([one.argmax() for one in scores]) == self.answers

    def _accuracy(self, scores: Sequence[Tensor]) -> float:
        return float(self._right(scores).double().mean())


def choices(
    model: nn.Module,
    ensemble: Ensemble,
    questions: Sequence[Question],
    *,
    tokenizer: Any,
    pool: Rule = "probability",
    batch: int = 8,
    block: int = 256,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
) -> Choices:
    """Log-likelihoods of the continuations of every question, members averaged at each token.

    pool    "probability" or "logit": what is averaged at each token
    batch, block   continuations run at once, padded behind; tokens whose words stand in memory at once

    A context longer than the network reads loses its beginning. Raises ValueError for no question, a question with an
    empty context, fewer than two continuations, an empty one, an answer that is none of them, a continuation longer
    than the network reads, or more members than memory holds; CheckpointError where tokenizer and network disagree.
    """
    check_vocabulary(tokenizer, model)
    for question in questions:
        _check(question)
    if not questions or batch < 1:
        raise ValueError(f"a question or more and a batch of one or more are wanted; got {len(questions)} and {batch}")
    limit = context_of(model)
    rows = [_row(tokenizer, q.context, choice, limit) for q in questions for choice in q.choices]
    batches = [_padded(rows[start : start + batch]) for start in range(0, len(rows), batch)]
    totals = torch.zeros(len(rows), dtype=torch.float64)
    options: dict[str, Any] = {"rule": pool, "block": block, "device": device, "dtype": dtype}
    for number, found in averages(model, ensemble, batches, **options):
        length = batches[number][1].shape[1]
        row = number * batch + torch.div(found.places, length, rounding_mode="floor")
        totals.index_add_(0, row, pooled_log_probs(found, pool))
    sizes = [len(q.choices) for q in questions]
    lengths = torch.tensor([len(c.removeprefix(" ")) for q in questions for c in q.choices], dtype=torch.float64)
    answers = torch.tensor([q.answer for q in questions])
    return Choices(tuple(torch.split(totals, sizes)), tuple(torch.split(lengths, sizes)), answers)


def _check(question: Question) -> None:
    if not question.context.strip():
        raise ValueError(f"the question with the choices {question.choices} has an empty context")
    if len(question.choices) < 2 or not all(choice.strip() for choice in question.choices):
        raise ValueError(f"two continuations or more are wanted, none of them empty; got {question.choices}")
    if not 0 <= question.answer < len(question.choices):
        raise ValueError(f"the answer is the place of one of {len(question.choices)} choices; got {question.answer}")


def _row(tokenizer: Any, context: str, choice: str, limit: int | None) -> tuple[Tensor, Tensor]:
    """Tokens and targets of a context with its continuation; only the continuation's tokens are targets."""
    # Spaces at the context's end belong to the continuation: there the tokenizer has its words with a space before.
    bare = context.rstrip()
    whole = tokenizer(bare + context[len(bare) :] + choice, verbose=False)["input_ids"]
    after = len(whole) - len(tokenizer(bare, verbose=False)["input_ids"])
    if after < 1 or len(whole) == after:
        raise ValueError(f"the tokenizer makes no tokens of the continuation {choice!r} or of its context")
    if limit is not None and after >= limit + 1:
        raise ValueError(f"the continuation {choice[:40]!r} has {after} tokens, and the network reads {limit} at once")
    kept = torch.tensor(whole if limit is None else whole[-(limit + 1) :])
    targets = kept[1:].clone()
    targets[: len(targets) - after] = IGNORED
    return kept[:-1], targets


def _padded(rows: Sequence[tuple[Tensor, Tensor]]) -> tuple[dict[str, Tensor], Tensor]:
    """Rows of one length, padded behind, where a causal network does not look back from."""
    pad = torch.nn.utils.rnn.pad_sequence
    tokens, targets = ([row[i] for row in rows] for i in (0, 1))
    mask = pad([torch.ones_like(row) for row in tokens], batch_first=True)
    inputs = {"input_ids": pad(tokens, batch_first=True), "attention_mask": mask}
    return inputs, pad(targets, batch_first=True, padding_value=IGNORED)
