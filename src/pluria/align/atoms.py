"""What an axis is made of while a network is followed: atoms that are tied to each other, cut and split as it runs.

    axis    a product of atoms, the outermost first: (heads, values) of an axis of heads x values elements
    atom    a number of places that are permuted together; it may turn out to be a product of smaller atoms (a view
            that splits it) or atoms end to end (a slice, a concatenation). A pinned atom is never permuted

Two axes that meet in one operation are tied: the same permutation acts on both, or none.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

Axis = tuple["Atom", ...]


class Atom:
    """Places of an axis; `parts` are atoms it was found to be made of, end to end or as a product."""

    def __init__(self, size: int, *, pinned: bool = False) -> None:
        self.size = size
        self.pinned = pinned
        self.parts: list[Atom] = []
        self.product = False
        self._same: Atom | None = None

    def root(self) -> Atom:
        """The atom that stands for all that are tied to this one."""
        found = self
        while found._same is not None:
            found = found._same
        return found

    def become(self, other: Atom) -> None:
        """Tie a root to another one."""
        self._same = other
        if self.pinned:
            pin((other,))

    def split(self, *parts: Atom, product: bool = False) -> None:
        """Find a root without parts to be made of `parts`."""
        self.parts, self.product = list(parts), product
        if self.pinned:
            pin(parts)


def resolved(axis: Axis) -> list[Atom]:
    """The roots an axis is a product of, without those of one place; an atom of parts end to end stays whole."""
    found: list[Atom] = []
    for atom in axis:
        root = atom.root()
        found += resolved(tuple(root.parts)) if root.product else [root] * (root.size != 1)
    return found


def length(axis: Axis) -> int:
    """Number of places of an axis."""
    return math.prod(atom.size for atom in axis)


def pin(axis: Sequence[Atom]) -> None:
    """Forbid every permutation of an axis."""
    for atom in axis:
        root = atom.root()
        if not root.pinned:
            root.pinned = True
            pin(root.parts)


def tie(one: Axis, other: Axis) -> None:
    """Let the same permutation act on both axes; where they cannot be split alike, none acts on either."""
    # A tie may split what comes later in the same axis, so the rest is resolved anew each time.
    while (left := resolved(one)) and (right := resolved(other)):
        if left[0].size != right[0].size:
            if not _level(left[0], right[0]):
                pin(left)
                pin(right)
                return
        else:
            _same(left[0], right[0])
            one, other = tuple(left[1:]), tuple(right[1:])


def split(axis: Axis, sizes: Sequence[int]) -> list[Axis]:
    """An axis as several, the outermost first, with these sizes."""
    atoms = tuple(Atom(size) for size in sizes)
    tie(axis, atoms)
    return [(atom,) for atom in atoms]


def between(axis: Axis, start: int, stop: int) -> Axis:
    """The places start..stop-1 of an axis."""
    if (start, stop) == (0, length(axis)):
        return axis
    parts = [Atom(start), Atom(stop - start), Atom(length(axis) - stop)]
    whole = end_to_end([(part,) for part in parts if part.size])
    tie(axis, whole)
    return (parts[1],)


def end_to_end(axes: Sequence[Axis]) -> Axis:
    """One axis of several, one after the other."""
    parts = []
    for axis in axes:
        part = Atom(length(axis))
        if len(axis) == 1:
            part = axis[0]
        else:
            part.split(*axis, product=True)
        parts.append(part)
    whole = Atom(sum(part.size for part in parts))
    if len(parts) == 1:
        return (parts[0],)
    whole.split(*parts)
    return (whole,)


def _same(a: Atom, b: Atom) -> None:
    """Tie two roots of equal size."""
    if a is b:
        return
    if a.parts and b.parts:
        if not _ends_alike(a, b):
            pin((a, b))
            return
        parts, others = list(a.parts), list(b.parts)
        a.become(b)
        for part, other in zip(parts, others, strict=True):
            tie((part,), (other,))
    elif a.parts:
        b.become(a)
    else:
        a.become(b)


def _level(one: Atom, other: Atom) -> bool:
    """Split the larger of two roots as a product so that it begins with the smaller; False where it cannot be."""
    small, large = sorted((one, other), key=lambda atom: atom.size)
    if large.size % small.size or large.parts:
        return False
    large.split(Atom(small.size), Atom(large.size // small.size), product=True)
    return True


def _ends_alike(a: Atom, b: Atom) -> bool:
    """Cut the parts of two atoms, each end to end, until they have equal lengths; False where one cannot be cut."""
    for one, other in ((a, b), (b, a)):
        wanted = _ends(other)
        place, parts = 0, []
        for part in one.parts:
            cuts = sorted(cut - place for cut in wanted if place < cut < place + part.size)
            pieces = _cut(part, cuts)
            if pieces is None:
                return False
            parts += pieces
            place += part.size
        one.parts = parts
    return True


def _ends(atom: Atom) -> set[int]:
    ends, place = set(), 0
    for part in atom.parts:
        place += part.size
        ends.add(place)
    return ends


def _cut(part: Atom, cuts: list[int]) -> list[Atom] | None:
    """A part of an atom as several, cut at these places."""
    if not cuts:
        return [part]
    found = resolved((part,))
    root = found[0]
    inner = part.size // root.size
    if any(cut % inner for cut in cuts):
        return None
    ends = [0, *(cut // inner for cut in cuts), root.size]
    pieces = [Atom(stop - start) for start, stop in pairwise(ends)]
    tie((root,), end_to_end([(piece,) for piece in pieces]))
    return pieces if len(found) == 1 else [_product(piece, found[1:]) for piece in pieces]


def _product(first: Atom, others: Sequence[Atom]) -> Atom:
    whole = Atom(first.size * math.prod(other.size for other in others))
    whole.split(first, *others, product=True)
    return whole
