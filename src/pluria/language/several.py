"""Several networks of one vocabulary, pooled token by token: members of all of them stand side by side on one axis.

    pooled[t] = pool( z[1..K, t, :], w[1..K, t] )        K = members of all networks

Every network runs its body once for each member and batch. Then block after block of tokens goes through all heads, and
the pool sees `[K, n, V]` of it: K * block * V floats stand in memory, whatever the number of tokens is. Unlike the
averages of one network, which need no member but the last, this serves any pool, such as consistency weights. Weights
of members can differ from token to token.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from pluria.core.calling import moved, place
from pluria.core.ensemble import Ensemble
from pluria.core.model import tensors, working_copy
from pluria.core.params import check_fit
from pluria.core.weights import checked_weights
from pluria.language.average import Writer, states_of
from pluria.language.memory import free_bytes, refuse_members
from pluria.language.split import Split
from pluria.language.tokens import IGNORED
from pluria.pool.average import mean_probability

Pool = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True, eq=False)
class PooledTokens:
    """What several networks say of a block of tokens.

    places, targets   where the tokens stand in their batch, flat, and the tokens that follow, int64 `[n]`
    pooled            log-probabilities by the pool `[n, V]`
    log_probs         of the targets: pooled, float64 `[n]`;   member_log_probs   of every member `[K, n]`
    """

    places: Tensor
    targets: Tensor
    pooled: Tensor
    log_probs: Tensor
    member_log_probs: Tensor


def pooled_tokens(
    sources: Sequence[tuple[nn.Module, Ensemble]],
    batches: Sequence[tuple[Any, Tensor]],
    *,
    pool: Pool = mean_probability,
    weights: Tensor | None = None,
    block: int = 256,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
) -> Iterator[tuple[int, PooledTokens]]:
    """Pairs (batch, what all members say of some of its tokens); the networks themselves are not touched.

    sources   networks and their ensembles; `pluria.single(params_of(model))` is a network as it stands
    batches   as for `averages`; every network reads the same tokens
    pool      `(outputs [K, n, V], weights [K, n]) -> [n, V]`, log-probabilities
    weights   `[K]`, or `[K, T]` for all T tokens that are predicted, in the order of the batches; by default networks
              count alike, and their members as the ensembles weigh them. Pools normalise them
    block     tokens whose words stand in memory at once, of all members
    device, dtype   of the working copies

    Raises CheckpointError where an ensemble is not its network's; ValueError for no source, weights that do not fit, a
    block below one, more members than memory holds, and networks that differ in the number of their words: those need
    `map_vocabulary`.
    """
    if not sources or block < 1:
        raise ValueError(f"one network or more, and a block of a token or more; got {len(sources)} and {block}")
    for model, ensemble in sources:
        check_fit(ensemble.outline(), tensors(model), what="the ensemble")
    count = sum(int((targets != IGNORED).sum()) for _, targets in batches)
    spread = _spread(sources, weights, count)
    where = place(sources[0][0]) if device is None else torch.device(device)
    twins = [(working_copy(model, device=where, dtype=dtype), ensemble) for model, ensemble in sources]
    return _streamed([_Source(*pair) for pair in twins], batches, pool, spread, block, where)


class _Source:
    """One network in halves, and its members."""

    def __init__(self, twin: nn.Module, ensemble: Ensemble) -> None:
        self.halves, self.members = Split(twin), ensemble.members
        self.write = Writer(twin, ensemble, self.halves.outside)
        self.states: list[Tensor] = []

    def read(self, inputs: Any, targets: Tensor, places: Tensor) -> None:
        self.states = states_of(self.halves, self.write, self.members, inputs, targets, places)

    def say(self, rows: slice) -> Iterator[Tensor]:
        """Log-probabilities `[n, V]` of every member."""
        for states, member in zip(self.states, self.members, strict=True):
            with torch.no_grad():
                self.write.tail(member)
                yield self.halves.head(states[rows]).float().log_softmax(-1)


def _streamed(
    sources: Sequence[_Source],
    batches: Sequence[tuple[Any, Tensor]],
    pool: Pool,
    weights: Tensor,
    block: int,
    where: torch.device,
) -> Iterator[tuple[int, PooledTokens]]:
    done = 0
    for number, (inputs, targets) in enumerate(batches):
        places = (targets.reshape(-1) != IGNORED).nonzero()[:, 0]
        for source in sources:
            source.read(moved(inputs, where, None), targets, places)
        for start in range(0, len(places), block):
            part = places[start : start + block]
            words = _said(sources, slice(start, start + block))
            yield number, _pooled(words, part, targets.reshape(-1)[part], pool, weights[:, done : done + len(part)])
            done += len(part)


def _said(sources: Sequence[_Source], rows: slice) -> list[Tensor]:
    """What all members say of some tokens, where memory holds it."""
    count, found = sum(len(source.members) for source in sources), list[Tensor]()
    for source in sources:
        for words in source.say(rows):
            if not found:
                instead = "a smaller block of tokens"
                refuse_members(
                    count, 2 * words.nbytes, free_bytes(words.device), instead=instead
                )  # and one table of all
            found.append(words)
    return found


def _pooled(words: Sequence[Tensor], places: Tensor, targets: Tensor, pool: Pool, weights: Tensor) -> PooledTokens:
    sizes = sorted({one.shape[-1] for one in words})
    if len(sizes) > 1:
        raise ValueError(f"the networks have {sizes} words: send them into one vocabulary by map_vocabulary first")
    if int(targets.max()) >= sizes[0] or int(targets.min()) < 0:
        raise ValueError(f"targets are tokens 0..{sizes[0] - 1} or {IGNORED}; got {targets.tolist()}")
    outputs = torch.stack(list(words)).cpu()
    pooled, chosen = pool(outputs, weights), targets.cpu()[:, None]
    own = outputs.gather(-1, chosen.expand(len(outputs), -1, 1))[..., 0]
    return PooledTokens(places, targets, pooled, pooled.gather(-1, chosen)[:, 0].double(), own.double())


def _spread(sources: Sequence[tuple[nn.Module, Ensemble]], weights: Tensor | None, count: int) -> Tensor:
    """Weights `[K, T]`, not normalised."""
    found = torch.cat([ensemble.weights for _, ensemble in sources]) if weights is None else checked_weights(weights)
    members = sum(len(ensemble) for _, ensemble in sources)
    if found.shape not in ((members,), (members, count)):
        raise ValueError(f"weights are [{members}] or [{members}, {count}]; got {list(found.shape)}")
    if not bool((found.sum(0) > 0).all()):
        raise ValueError("the members' weights must have a positive sum for every token")
    return found if found.ndim == 2 else found[:, None].expand(members, count)
