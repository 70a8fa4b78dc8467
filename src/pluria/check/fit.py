"""Whether models fit each other tensor by tensor: names, shapes, dtypes, integers and ties."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor

from pluria.check.between import PIECE, Source

SHOWN = 5


def problems(models: Sequence[Source], base: Source | None = None) -> Iterator[str]:
    """What forbids a merge tensor by tensor, one sentence for each model and kind; read from headers, integers too."""
    first = models[0]
    for other in (*models[1:], *([] if base is None else [base])):
        missing = [name for name in first.outline if name not in other.outline]
        unknown = [name for name in other.outline if name not in first.outline]
        both = [name for name in first.outline if name in other.outline]
        shapes = [
            f"{name} {tuple(first.outline[name].shape)} and {tuple(other.outline[name].shape)}"
            for name in both
            if first.outline[name].shape != other.outline[name].shape
        ]
        kinds = [n for n in both if first.outline[n].is_floating_point() != other.outline[n].is_floating_point()]
        named = {"lacks": missing, "has besides": unknown, "differs in shape:": shapes, "differs in kind:": kinds}
        for what, found in named.items():
            if found:
                yield f"{other.label} {what} {_listed(found)}; compared with {first.label}"


def notes(models: Sequence[Source]) -> Iterator[str]:
    """What a merge has to decide: dtypes that differ, integers that differ, names that are tied in some models."""
    first = models[0]
    for other in models[1:]:
        dtypes = [name for name, value in first.outline.items() if other.outline[name].dtype != value.dtype]
        if dtypes:
            yield f"{other.label} has other dtypes than {first.label}: {_listed(dtypes)}"
        whole = [name for name, value in first.outline.items() if not value.is_floating_point()]
        differ = [name for name in whole if not equal(first, other, name)]
        if differ:
            yield f"integers differ between {first.label} and {other.label}: {_listed(differ)}"
    tied = [ties_of(model) for model in models]
    if any(one != tied[0] for one in tied):
        yield f"names are tied in some models and not in others: {_listed(sorted(set().union(*tied)))}"
    elif tied[0]:
        yield f"tied names, merged once: {_listed(sorted(tied[0]))}"


def ties_of(model: Source) -> frozenset[str]:
    """Names of matrices that hold the very elements of an earlier one: tied, whether the file says so or not."""
    seen: dict[tuple[object, ...], list[str]] = {}
    found = set()
    for name, value in model.outline.items():
        if value.ndim < 2 or not value.is_floating_point():
            continue
        same = seen.setdefault((tuple(value.shape), value.dtype), [])
        if any(equal(model, model, name, one) for one in same):
            found.add(name)
        else:
            same.append(name)
    return frozenset(found)


def equal(one: Source, other: Source, name: str, beside: str | None = None) -> bool:
    """Whether a tensor of one model holds the elements of the other's, of the same name unless `beside` gives another.

    Reading ends at the first piece that differs.
    """
    beside, outline = beside or name, one.outline[name]
    start, piece = 0, 64
    while start < outline.numel():
        count = min(piece, outline.numel() - start)
        if not torch.equal(_read(one, name, start, count), _read(other, beside, start, count)):
            return False
        start, piece = start + count, PIECE
    return True


def floating(outline: Mapping[str, Tensor]) -> list[str]:
    """Names of the floating tensors that have elements, in order."""
    return [name for name, value in sorted(outline.items()) if value.is_floating_point() and value.numel()]


def _read(model: Source, name: str, start: int, count: int) -> Tensor:
    out = torch.empty(count, dtype=model.outline[name].dtype)
    model.read(name, start, out)
    return out


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more
