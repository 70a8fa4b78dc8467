"""What layers do to axes: products, convolutions, norms, pooling, embeddings."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from pluria.align.atoms import Atom, length, pin, tie
from pluria.align.shapes import Axes, Of, Rule, given, pinned


def product(of: Of, results: list[Tensor], args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Axes]:
    """Matrix products, in batches or with something added: last axis of the one, last but one of the other."""
    *added, one, other = map(of, args)
    tie(one[-1], other[0] if len(other) == 1 else other[-2])
    for left, right in zip(one[:-2], other[:-2], strict=False):
        tie(left, right)
    axes = one[:-1] if len(other) == 1 else (*one[:-1], other[-1])
    for own in added:
        for axis, met in zip(reversed(own), reversed(axes), strict=False):
            if length(axis) == length(met):
                tie(axis, met)
    return [axes]


def convolution(of: Of, results: list[Tensor], args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Axes]:
    """Channels in groups: a group is tied to the same group of the output; the places of an image are pinned."""
    x, w, transposed, groups = of(args[0]), of(args[1]), args[6], args[8]
    for axis in (*x[2:], *w[2:]):
        pin(axis)
    # With one group these are the plain axes: an atom of one place is none.
    group, before = Atom(groups), Atom(length(x[1]) // groups)
    after = Atom(results[0].shape[1] // groups)
    tie(x[1], (group, before))
    tie(w[0], (group, before if transposed else after))
    tie(w[1], (after if transposed else before,))
    if args[2] is not None:
        tie(of(args[2])[0], (group, after))
    return [(x[0], (group, after), *pinned(results[0].shape[2:]))]


def norm(first: int) -> Rule:
    """A norm: the axes of its weights, from argument number `first`, are tied to the channels."""

    def rule(of: Of, results: list[Tensor], args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Axes]:
        axes = of(args[0])
        for tensor in given(args[first : first + 4]):
            own = of(tensor)
            for axis, other in zip(own, axes[-len(own) :] if first == 2 else axes[1:2], strict=True):
                tie(axis, other)
        return [axes, *(pinned(result.shape) for result in results[1:])]

    return rule


def group_norm(of: Of, results: list[Tensor], args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Axes]:
    """Channels are tied to the weights, in groups."""
    axes, groups = of(args[0]), args[6]
    tie(axes[1], (Atom(groups), Atom(length(axes[1]) // groups)))
    for tensor in given(args[1:3]):
        tie(of(tensor)[0], axes[1])
    return [axes, *(pinned(result.shape) for result in results[1:])]


def spatial(of: Of, results: list[Tensor], args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Axes]:
    """Pooling and interpolation: examples and channels stay, the places of an image are pinned."""
    axes = of(args[0])
    kept = 2 if len(axes) > 3 else len(axes) - 1
    for axis in axes[kept:]:
        pin(axis)
    return [(*axes[:kept], *pinned(result.shape[kept:])) for result in results]


def embedding(of: Of, results: list[Tensor], args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Axes]:
    """Rows are looked up, so they are pinned."""
    table = of(args[0])
    pin(table[0])
    return [(*of(args[1]), table[1])]
