"""What operations that move, spread, cut or join axes do to them; and what is done where nothing is known.

rule(of, results, args, kwargs)    of(tensor) -> its axes; results: what the operation gave
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from torch import Tensor

from pluria.align.atoms import Atom, Axis, between, end_to_end, length, pin, split, tie

Axes = tuple[Axis, ...]
Of = Callable[[Tensor], Axes]
Rule = Callable[[Of, list[Tensor], tuple[Any, ...], dict[str, Any]], list[Axes]]


def pointwise(of: Of, results: list[Tensor], args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Axes]:
    """Axes that meet are tied; one place is spread over many."""
    shape = results[0].shape
    axes: list[Axis] = [()] * len(shape)
    for tensor in given((*args, *kwargs.values())):
        own = of(tensor)
        for place, axis in enumerate(own, start=len(shape) - len(own)):
            if length(axis) == shape[place]:
                if axes[place]:
                    tie(axes[place], axis)
                axes[place] = axes[place] or axis
    return [tuple(axis or (Atom(size),) for axis, size in zip(axes, shape, strict=True))] * len(results)


def view(of: Of, results: list[Tensor], args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Axes]:
    """Axes are split and put together in row-major order."""
    shape = results[0].shape
    if 0 in shape:
        return [pinned(shape)]
    whole = tuple(atom for axis in of(args[0]) for atom in axis)
    return [tuple(split(whole, shape))]


def same(of: Of, results: list[Tensor], args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Axes]:
    """The axes stay as they are; places of one axis may answer to each other, whatever their order."""
    return [of(args[0])] * len(results)


def permute(of: Of, results: list[Tensor], args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Axes]:
    """Axes in another order."""
    axes = of(args[0])
    return [tuple(axes[place] for place in args[1])]


def transpose(of: Of, results: list[Tensor], args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Axes]:
    """Two axes change places."""
    axes = list(of(args[0]))
    if len(axes) < 2:
        return [tuple(axes)]
    one, other = args[1:3] if len(args) > 1 else (0, 1)
    axes[one], axes[other] = axes[other], axes[one]
    return [tuple(axes)]


def unsqueeze(of: Of, results: list[Tensor], args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Axes]:
    """A new axis of one place."""
    axes = list(of(args[0]))
    axes.insert(args[1] % (len(axes) + 1), (Atom(1),))
    return [tuple(axes)]


def squeeze(of: Of, results: list[Tensor], args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Axes]:
    """Axes of one place vanish."""
    axes = of(args[0])
    gone_over = args[1] if len(args) > 1 else range(len(axes))
    gone = {place % len(axes) for place in ([gone_over] if isinstance(gone_over, int) else gone_over)}
    return [tuple(axis for place, axis in enumerate(axes) if place not in gone or length(axis) != 1)]


def expand(of: Of, results: list[Tensor], args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Axes]:
    """One place is spread over many, which are alike."""
    shape, own = results[0].shape, of(args[0])
    padded = [(Atom(1),)] * (len(shape) - len(own)) + list(own)
    return [tuple(a if length(a) == size else (Atom(size),) for a, size in zip(padded, shape, strict=True))]


def reduce(of: Of, results: list[Tensor], args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Axes]:
    """A symmetric sum, mean, maximum: the axes it goes over vanish, or keep one place."""
    axes = of(args[0])
    gone_over = kwargs.get("dim", args[1] if len(args) > 1 else None)
    if gone_over is None or gone_over == [] or isinstance(gone_over, float | bool):
        gone_over = range(len(axes))
    gone = {place % max(len(axes), 1) for place in ([gone_over] if isinstance(gone_over, int) else gone_over)}
    if results[0].ndim == len(axes):
        return [tuple((Atom(1),) if place in gone else axis for place, axis in enumerate(axes))] * len(results)
    return [tuple(axis for place, axis in enumerate(axes) if place not in gone)] * len(results)


def select(of: Of, results: list[Tensor], args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Axes]:
    """One place is taken: its axis is pinned and vanishes."""
    axes = list(of(args[0]))
    pin(axes.pop((args[1] if len(args) > 1 else 0) % len(axes)))
    return [tuple(axes)] * len(results)


def indexed(of: Of, results: list[Tensor], args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Axes]:
    """Places are looked up along axes that stand side by side: those are pinned, the others stay."""
    axes = of(args[0])
    looked = [place for place, index in enumerate(args[1]) if index is not None]
    if looked != list(range(looked[0], looked[-1] + 1)):
        return unknown(of, results, args, kwargs)
    for place in looked:
        pin(axes[place])
    after = axes[looked[-1] + 1 :]
    found = pinned(results[0].shape[looked[0] : results[0].ndim - len(after)])
    return [(*axes[: looked[0]], *found, *after)]


def take(of: Of, results: list[Tensor], args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Axes]:
    """A slice: a run of places is cut out; with a step the axis is pinned."""
    axes, place = list(of(args[0])), (args[1] if len(args) > 1 else 0) % args[0].ndim
    size, step = args[0].shape[place], args[4] if len(args) > 4 else 1
    start, stop, _ = slice(*(args[2:4] if len(args) > 3 else (*args[2:], None)[:2])).indices(size)
    if step != 1:
        pin(axes[place])
        axes[place] = pinned(results[0].shape[place : place + 1])[0]
    elif stop > start:
        axes[place] = between(axes[place], start, stop)
    return [tuple(axes)]


def parts(of: Of, results: list[Tensor], args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Axes]:
    """Split into runs of places."""
    axes, place = list(of(args[0])), (args[2] if len(args) > 2 else kwargs.get("dim", 0)) % args[0].ndim
    found, start = [], 0
    for result in results:
        stop = start + result.shape[place]
        found.append((*axes[:place], between(axes[place], start, stop), *axes[place + 1 :]))
        start = stop
    return found


def concatenate(of: Of, results: list[Tensor], args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Axes]:
    """Runs of places end to end."""
    several = [of(tensor) for tensor in args[0] if tensor.numel()]
    place = (args[1] if len(args) > 1 else 0) % results[0].ndim
    for other in several[1:]:
        for number, (one, two) in enumerate(zip(several[0], other, strict=True)):
            if number != place:
                tie(one, two)
    axes = list(several[0])
    axes[place] = end_to_end([own[place] for own in several])
    return [tuple(axes)]


def stack(of: Of, results: list[Tensor], args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Axes]:
    """Tensors of equal axes are put along a new one."""
    several = [of(tensor) for tensor in args[0]]
    for other in several[1:]:
        for one, two in zip(several[0], other, strict=True):
            tie(one, two)
    axes, place = list(several[0]), (args[1] if len(args) > 1 else 0) % results[0].ndim
    axes.insert(place, (Atom(len(several), pinned=True),))
    return [tuple(axes)]


def padded(of: Of, results: list[Tensor], args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Axes]:
    """One value before and after the places of an axis."""
    axes, sides = list(of(args[0])), list(args[1])
    for place, (before, after) in enumerate(zip(sides[::2], sides[1::2], strict=True), start=1):
        if min(before, after) < 0:
            return unknown(of, results, args, kwargs)
        ends = [axes[-place] if size is None else (Atom(size),) for size in (before, None, after) if size != 0]
        axes[-place] = end_to_end(ends)
    return [tuple(axes)]


def copied(of: Of, results: list[Tensor], args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Axes]:
    """Written into a tensor that is there: the axes of both are tied."""
    return pointwise(of, results, args[:2], {})


def filled(of: Of, results: list[Tensor], args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Axes]:
    """A new tensor of one value everywhere, or of nothing yet: its places are alike."""
    return [tuple((Atom(size),) for size in result.shape) for result in results]


def unknown(of: Of, results: list[Tensor], args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Axes]:
    """No rule: all axes of the inputs are pinned, and those of the results as well."""
    for tensor in given((*args, *kwargs.values())):
        for axis in of(tensor):
            pin(axis)
    return [pinned(result.shape) for result in results]


def given(values: Sequence[Any]) -> Iterator[Tensor]:
    """The tensors among arguments."""
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, tuple | list):
            yield from given(value)


def pinned(shape: Sequence[int]) -> Axes:
    """Axes whose places stay."""
    return tuple((Atom(size, pinned=True),) for size in shape)
