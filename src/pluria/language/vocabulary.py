"""Models with different tokenizers: tokens aligned by edit distance, and distributions sent into another vocabulary.

    P_target(u) = sum over v with A(v) = u of p_source(v)  /  the same over all u        A: source token to target token

A is exact where both vocabularies have the string. Other tokens follow `rest`:

    nearest   the target token of least edit distance (MinED); level: the longest common beginning, then the lowest id
    prefix    the longest target token that the source token begins with: what the target says first of the same text
    drop      none

A token that goes nowhere hands its mass to all others in proportion, so mass is kept and every row sums to one. The
union form has one word for each string that any of the vocabularies has, and its maps are exact: no mass is moved.
Sources: Wan et al., FuseLLM, ICLR 2024 (MinED, alignment); Yao et al., UniTE, 2024 (the rule of the first sub-token);
Yu et al., GaC, 2024 (union).
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Rest = Literal["nearest", "prefix", "drop"]
Codes = NDArray[np.int32]

MARKS = str.maketrans({"▁": " ", "Ġ": " ", "Ċ": "\n", "ĉ": "\t"})
BYTE = re.compile("<0x([0-7][0-9A-Fa-f])>")


@dataclass(frozen=True, eq=False)
class VocabularyMap:
    """Where every source token goes: `to` `[V_source]`, a token of the target or -1; `size` is V_target."""

    to: Tensor
    size: int
    exact: Tensor

    @property
    def shared(self) -> float:
        """Share of the source tokens that the target has as they are."""
        return float(self.exact.double().mean())

    def __call__(self, outputs: Tensor) -> Tensor:
        """Log-probabilities `[..., V_target]` of logits or log-probabilities `[..., V_source]`; each row sums to one.

        A target token that nothing goes to has -inf. A row whose mass is all on tokens that go nowhere says nothing: it
        becomes uniform. A row with NaN is NaN. Raises ValueError for another number of source tokens.
        """
        if outputs.ndim == 0 or outputs.shape[-1] != len(self.to):
            raise ValueError(f"this map takes {len(self.to)} source tokens [..., V]; got {list(outputs.shape)}")
        probs = outputs.to(torch.float64).softmax(-1)
        kept = (self.to >= 0).to(probs.device)
        found = torch.zeros(*outputs.shape[:-1], self.size, dtype=torch.float64, device=probs.device)
        found.index_add_(-1, self.to.to(probs.device)[kept], probs[..., kept])
        mass = found.sum(-1, keepdim=True)
        return torch.where(mass == 0, 1 / self.size, found / mass).log().to(outputs.dtype)


def map_vocabulary(
    source: Sequence[str],
    target: Sequence[str],
    *,
    rest: Rest = "nearest",
    same: Mapping[str, str] | None = None,
    leave_out: Collection[str] = (),
) -> VocabularyMap:
    """The map from one vocabulary into another; both are strings by token id, as `token_strings` gives them.

    rest        where source tokens go that the target has not
    same        source strings that stand for target strings of another name, such as the first token of a text
    leave_out   source strings that go nowhere

    An empty string is no token: it goes nowhere and nothing goes to it. "nearest" compares each token that is left with
    all of the target: minutes for thousands of tokens, hours for vocabularies of 100,000; "prefix" takes seconds.
    Raises ValueError for an unknown `rest`, vocabularies that share no string, and names in `same` that are none.

    >>> map_vocabulary(["a", "cat", "cats"], ["a", "ca", "cat"], rest="prefix").to.tolist()
    [0, 2, 2]
    """
    if rest not in get_args(Rest):
        raise ValueError(f"rest is one of {', '.join(get_args(Rest))}; got {rest!r}")
    ids: dict[str, int] = {}
    for token, string in enumerate(target):
        ids.setdefault(string, token)
    ids.pop("", None)
    named = _named(same or {}, source, ids)
    strings = ["" if string in leave_out else named.get(string, string) for string in source]
    exact = [string in ids for string in strings]
    if not any(exact):
        raise ValueError(
            f"the vocabularies share no string, such as {list(source)[:4]} and {list(target)[:4]}: give both as "
            "token_strings does, without marks of their own for blanks"
        )
    # What both have by the same id stays where it is, also where a string stands twice.
    to = [
        i if i < len(target) and string and string == target[i] else ids.get(string, -1)
        for i, string in enumerate(strings)
    ]
    others = {strings[i] for i in range(len(strings)) if to[i] < 0 and strings[i]}
    moved = _moved(sorted(others), ids, rest)
    to = [moved.get(string, -1) if place < 0 else place for string, place in zip(strings, to, strict=True)]
    return VocabularyMap(torch.tensor(to, dtype=torch.int64), len(target), torch.tensor(exact))


def union_vocabulary(*vocabularies: Sequence[str]) -> tuple[list[str], list[VocabularyMap]]:
    """The strings that any of the vocabularies has, in the order met, and the map of each into them.

    >>> words, maps = union_vocabulary(["a", "b"], ["b", "c"])
    >>> words, maps[1].to.tolist()
    (['a', 'b', 'c'], [1, 2])
    """
    words = [string for string in dict.fromkeys(s for one in vocabularies for s in one) if string]
    return words, [map_vocabulary(one, words, rest="drop") for one in vocabularies]


def token_strings(tokenizer: Any) -> list[str]:
    """What every token of a transformers tokenizer stands for, by id; gaps are empty.

    Marks of blanks and ends of lines become these. A byte token below 128 becomes its character where no other token
    has it: two tokens of one string would share what one of them never says. Other byte tokens, and letters that a
    byte-level tokenizer spells in several bytes, keep the tokenizer's names.
    """
    held = tokenizer.get_vocab()
    found = [""] * (max(held.values(), default=-1) + 1)
    for name, token in held.items():
        found[token] = name.translate(MARKS)
    taken = set(found)
    for token, name in enumerate(found):
        if (byte := BYTE.fullmatch(name)) and chr(int(byte[1], 16)) not in taken:
            found[token] = chr(int(byte[1], 16))
    return found


def edit_distance(first: Sequence[object], second: Sequence[object]) -> int:
    """The least number of insertions, deletions and replacements that make one sequence the other (Levenshtein).

    >>> edit_distance("kitten", "sitting")
    3
    """
    row = list(range(len(second) + 1))
    for i, one in enumerate(first, 1):
        above, row[0] = row[0], i
        for j, other in enumerate(second, 1):
            above, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, above + (one != other))
    return row[-1]


def align_tokens(first: Sequence[str], second: Sequence[str]) -> list[tuple[int, int]]:
    """Pairs (i, j) of tokens of two tokenizations of one text, in order, of least total edit distance.

    Every token stands in one pair or more, neither side goes back (dynamic time warping), and of level ways the one
    that moves on in both wins. Raises ValueError for a sequence without tokens.

    >>> align_tokens(["the", "cat"], ["the", "ca", "t"])
    [(0, 0), (1, 1), (1, 2)]
    """
    if not len(first) or not len(second):
        raise ValueError(f"two sequences with tokens are wanted; got {len(first)} and {len(second)}")
    known: dict[tuple[str, str], int] = {}
    total = np.full((len(first) + 1, len(second) + 1), np.inf)
    total[0, 0] = 0
    for i, one in enumerate(first):
        for j, other in enumerate(second):
            cost = known.setdefault((one, other), edit_distance(one, other)) if one != other else 0
            total[i + 1, j + 1] = cost + min(total[i, j], total[i, j + 1], total[i + 1, j])
    i, j = len(first), len(second)
    path = [(i - 1, j - 1)]
    while (i, j) != (1, 1):
        steps = ((i - 1, j - 1), (i - 1, j), (i, j - 1))
        i, j = min(steps, key=lambda step: total[step])  # the first of the least
        path.append((i - 1, j - 1))
    return path[::-1]


def _named(same: Mapping[str, str], source: Sequence[str], ids: Mapping[str, int]) -> Mapping[str, str]:
    known = set(source)
    if wrong := [pair for pair in same.items() if pair[0] not in known or pair[1] not in ids]:
        raise ValueError(f"same={dict(wrong)}: the first is to be a source token and the second a target token")
    return same


def _moved(strings: Sequence[str], ids: Mapping[str, int], rest: Rest) -> dict[str, int]:
    """Where strings go that the target has not."""
    if rest == "drop" or not strings:
        return {}
    if rest == "prefix":
        cuts = {string: [string[:n] for n in range(len(string), 0, -1)] for string in strings}
        return {string: next((ids[cut] for cut in tried if cut in ids), -1) for string, tried in cuts.items()}
    names = sorted(ids, key=lambda name: ids[name])
    codes, lengths = _codes(names)
    found = {}
    for string in strings:
        apart = _distances(string, codes, lengths)
        level = [names[i] for i in np.flatnonzero(apart == apart.min())]
        found[string] = ids[max(level, key=lambda name: _common(string, name))]  # the first of the largest
    return found


def _codes(names: Sequence[str]) -> tuple[Codes, NDArray[np.int64]]:
    """Code points of all names `[V, L]`, -1 behind their ends, and their lengths."""
    lengths = np.array([len(name) for name in names])
    codes = np.full((len(names), int(lengths.max())), -1, dtype=np.int32)
    for row, name in zip(codes, names, strict=True):
        row[: len(name)] = [ord(letter) for letter in name]
    return codes, lengths


def _distances(string: str, codes: Codes, lengths: NDArray[np.int64]) -> Codes:
    """Edit distances of one string to all names `[V]`, one column of all names at a time."""
    width = codes.shape[1]
    row = np.broadcast_to(np.arange(width + 1, dtype=np.int32), (len(codes), width + 1)).T.copy()
    for i, letter in enumerate(string, 1):
        above = row[0].copy()
        row[0] = i
        for j in range(1, width + 1):
            fresh = np.minimum(np.minimum(row[j], row[j - 1]) + 1, above + (codes[:, j - 1] != ord(letter)))
            above, row[j] = row[j].copy(), fresh
    found: Codes = row[lengths, np.arange(len(codes))]
    return found


def _common(first: str, second: str) -> int:
    """Letters of the longest common beginning."""
    return next(
        (i for i, (a, b) in enumerate(zip(first, second, strict=False)) if a != b), min(len(first), len(second))
    )
