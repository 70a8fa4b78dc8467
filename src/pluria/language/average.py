"""Per-token averages over members, streamed: what members say of a block of tokens stands in memory, and no more.

    probability   log sum_k w_k softmax(z_k)        logit   log_softmax( sum_k w_k log_softmax(z_k) )

Every member runs its body over a batch, once, and its states [N, D] are kept. Then block after block of tokens goes
through the members' heads, and their answers are added up as they come: K members, N tokens and V words take about
4 * block * V floats and K * N * D for the states, whatever K * N * V is. Padding (target -100) never reaches a head.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from pluria.core.calling import moved, place
from pluria.core.ensemble import Ensemble
from pluria.core.family import Shared
from pluria.core.model import tensors, working_copy
from pluria.core.params import check_fit
from pluria.language.memory import free_bytes, refuse_members
from pluria.language.split import Split
from pluria.language.tokens import IGNORED

Rule = Literal["probability", "logit"]
RULES = ("probability", "logit")


@dataclass(frozen=True, eq=False)
class Averaged:
    """What the first `members` members say of a block of tokens.

    places   where the tokens stand in their batch, flat, int64 `[n]`
    targets  the tokens that follow, int64 `[n]`
    pooled   log-probabilities by the rule, float32 `[n, V]`
    log_probs, entropies, tops   of each member: log-probability of the target, entropy in nats, most probable token,
             `[k, n]`
    weights  the members' weights, float64 `[k]`, summing to one
    """

    members: int
    places: Tensor
    targets: Tensor
    pooled: Tensor
    log_probs: Tensor
    entropies: Tensor
    tops: Tensor
    weights: Tensor


def averages(
    model: nn.Module,
    ensemble: Ensemble,
    batches: Sequence[tuple[Any, Tensor]],
    *,
    rule: Rule = "probability",
    sizes: Sequence[int] | None = None,
    block: int = 256,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
) -> Iterator[tuple[int, Averaged]]:
    """Pairs (batch, what members say of some of its tokens); the model itself is not touched.

    batches   pairs of inputs (tokens `[B, L]`, or a dict of the model's arguments) and targets `[B, L]`, -100 ignored
    sizes     how many members are averaged: each of these numbers gives its own answer; all of them by default
    block     tokens whose words stand in memory at once
    device, dtype   of the working copy

    Raises CheckpointError where the ensemble is not the model's, ValueError for a bad option, targets of another shape
    than the inputs' tokens, a target that is no word, and more members than memory holds, with the number that fit.
    """
    wanted = sorted({*(sizes if sizes is not None else [len(ensemble)])})
    if rule not in RULES or block < 1:
        raise ValueError(f"the rule is 'probability' or 'logit' and a block has a token or more; got {rule!r}, {block}")
    if not wanted or not 1 <= wanted[0] <= wanted[-1] <= len(ensemble):
        raise ValueError(f"sizes are in 1..{len(ensemble)}, the members there are; got {wanted}")
    check_fit(ensemble.outline(), tensors(model), what="the ensemble")
    where = place(model) if device is None else torch.device(device)
    twin = working_copy(model, device=where, dtype=dtype)
    return _streamed(twin, ensemble.first(wanted[-1]), batches, rule, wanted, block)


def _streamed(
    twin: nn.Module,
    ensemble: Ensemble,
    batches: Sequence[tuple[Any, Tensor]],
    rule: Rule,
    sizes: Sequence[int],
    block: int,
) -> Iterator[tuple[int, Averaged]]:
    halves, where = Split(twin), place(twin)
    write = Writer(twin, ensemble, halves.outside)
    for number, (inputs, targets) in enumerate(batches):
        places = (targets.reshape(-1) != IGNORED).nonzero()[:, 0]
        states = states_of(halves, write, ensemble.members, moved(inputs, where, None), targets, places)
        for start in range(0, len(places), block):
            rows = slice(start, start + block)
            wanted = targets.reshape(-1)[places[rows]]
            running = _Running(rule, ensemble.weights, wanted)
            for position, member in enumerate(ensemble.members):
                with torch.no_grad():
                    write.tail(member)
                    running.add(halves.head(states[position][rows]))
                    found = running.answer(places[rows]) if position + 1 in sizes else None
                if found is not None:
                    yield number, found


def states_of(
    halves: Split, write: Writer, members: Sequence[int], inputs: Any, targets: Tensor, places: Tensor
) -> list[Tensor]:
    """The states `[N, D]` of every member at the places whose next token is wanted.

    Raises ValueError where those of all members are more than memory holds.
    """
    found = []
    for member in members:
        with torch.no_grad():
            write.body(member)
            states = halves.body(inputs)
            if states.shape[:-1] != targets.shape:
                shapes = f"{list(targets.shape)} and {list(states.shape[:-1])}"
                raise ValueError(f"targets and what the network says of its inputs have the shapes {shapes}")
            found.append(states.reshape(-1, states.shape[-1])[places.to(states.device)])
        if len(found) == 1:  # the others will take as much
            free = free_bytes(found[0].device)
            refuse_members(len(members), found[0].nbytes, free, instead="a smaller batch, or a shorter context")
    return found


class Writer:
    """Writes members into the working copy; for a head alone, only what it uses and what differs between members."""

    def __init__(self, twin: nn.Module, ensemble: Ensemble, outside: Sequence[str]) -> None:
        found = {n: f for n in outside if (f := ensemble.families.get(n)) is not None and not isinstance(f, Shared)}
        self.whole, self.own = ensemble, tensors(twin)
        self.head = Ensemble(found, ensemble.members) if found else None
        self.held: dict[str, int | None] = {"body": None, "head": None}

    def body(self, member: int) -> None:
        if self.held["body"] != member:
            self.whole.write(member, self.own)
            self.held = {"body": member, "head": member}

    def tail(self, member: int) -> None:
        if self.head is not None and self.held["head"] != member:
            self.head.write(member, self.own)
            self.held = {"body": None, "head": member}  # a head may share the embedding with the body


class _Running:
    """The sum over members for one block of tokens."""

    def __init__(self, rule: Rule, weights: Tensor, targets: Tensor) -> None:
        self.rule, self.weights, self.targets = rule, weights, targets
        self.state: Tensor | None = None
        self.rows: list[tuple[Tensor, Tensor, Tensor]] = []

    def add(self, logits: Tensor) -> None:
        """The logits `[n, V]` of the next member."""
        if int(self.targets.max()) >= logits.shape[-1] or int(self.targets.min()) < 0:
            raise ValueError(f"targets are tokens 0..{logits.shape[-1] - 1} or {IGNORED}; got {self.targets.tolist()}")
        words = logits.float().log_softmax(-1)
        chosen = words.gather(-1, self.targets.to(words.device)[:, None])[:, 0]
        self.rows.append((chosen.double().cpu(), entropy(words).cpu(), words.argmax(-1).cpu()))
        weight = float(self.weights[len(self.rows) - 1])
        if weight == 0:
            return
        part = words.add_(torch.tensor(weight).log()) if self.rule == "probability" else words.mul_(weight)
        if self.state is None:
            self.state = part
        else:
            join = torch.logaddexp if self.rule == "probability" else torch.add
            join(self.state, part, out=self.state)

    def answer(self, places: Tensor) -> Averaged:
        """What the members so far say together; a copy."""
        if self.state is None:
            raise ValueError("the first members have weight zero; give sizes with a member that counts")
        weights = self.weights[: len(self.rows)] / self.weights[: len(self.rows)].sum()
        scale = 1.0 if self.rule == "probability" else float(self.weights[: len(self.rows)].sum())
        pooled = (self.state / scale).log_softmax(-1).cpu()
        log_probs, entropies, tops = (torch.stack(list(rows)) for rows in zip(*self.rows, strict=True))
        return Averaged(len(self.rows), places, self.targets, pooled, log_probs, entropies, tops, weights)


def pooled_log_probs(found: Averaged, rule: Rule) -> Tensor:
    """The pooled log-probability of each target, float64 `[n]`; of probabilities, from the members' own in float64."""
    if rule == "probability":
        return (found.weights[:, None].log() + found.log_probs).logsumexp(0)
    return found.pooled.gather(-1, found.targets[:, None])[:, 0].double()


def entropy(log_probs: Tensor) -> Tensor:
    """Entropy in nats, float64 `[n]`, of log-probabilities `[n, V]`; a word of probability zero adds nothing."""
    # Summed in slices of words, so that no second table of them is made.
    parts = (part.exp().mul_(part.clamp(min=-1e30)).sum(-1).double() for part in torch.split(log_probs, 4096, dim=-1))
    return -sum(parts, start=torch.zeros(len(log_probs), dtype=torch.float64, device=log_probs.device))


def batched(tokens: Tensor, targets: Tensor, size: int) -> list[tuple[Mapping[str, Tensor], Tensor]]:
    """Windows `[W, L]` and their targets as batches of `size` for `averages`."""
    if size < 1:
        raise ValueError(f"a batch has one window or more; got {size}")
    return [
        ({"input_ids": part}, wanted)
        for part, wanted in zip(torch.split(tokens, size), torch.split(targets, size), strict=True)
    ]
