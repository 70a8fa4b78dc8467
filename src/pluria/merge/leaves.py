"""What there is to merge, checked before anything is read: names, shapes, dtypes, and tensors that are no floats.

floating tensors      merged by the rule
running_mean, _var    of batch norm, the same; the members' mean where the rule may go beyond them
num_batches_tracked   of the base, or else of the first member; or the members' sum
other integers, bool  equal in all models, and copied
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor

from pluria.core.errors import CheckpointError
from pluria.core.params import listed
from pluria.merge.linear import linear
from pluria.merge.pieces import Leaf, Source
from pluria.merge.rule import Named, Rule, Rules
from pluria.numbers.members import SIXTEEN

Counters = Literal["first", "sum"]
COUNTER = "num_batches_tracked"
STATISTICS = ("running_mean", "running_var")


def leaves_of(
    members: Sequence[Source],
    base: Source | None,
    rules: Rules,
    weights: Tensor | Callable[[str], Tensor],
    *,
    dtype: torch.dtype | None = None,
) -> list[Leaf]:
    """A leaf for each floating tensor, in the order of the first member.

    dtype   of what is merged; by default that of the members, which must agree

    Raises CheckpointError for other names or shapes, and for dtypes that differ; ValueError where a rule needs a base
    or another number of members.
    """
    everyone = [*members, *([] if base is None else [base])]
    _check(everyone)
    if isinstance(rules, Named):
        rules.check(members[0].outline)
    made = []
    for name, value in members[0].outline.items():
        if value.is_floating_point():
            rule = rules if isinstance(rules, Rule) else rules(name)
            _fits(rule, len(members), base)
            rule = rule if rule.between or not _statistic(name, members[0].outline) else linear()
            kinds = [source.outline[name].dtype for source in everyone]
            arithmetic = torch.float32 if all(kind in SIXTEEN for kind in kinds) else torch.float64
            own = weights if isinstance(weights, Tensor) else weights(name)
            made.append(Leaf(name, value.shape, _dtype(name, everyone, dtype), arithmetic, rule, own))
    return _of_one_arithmetic(made)


def _of_one_arithmetic(leaves: list[Leaf]) -> list[Leaf]:
    """What is measured over the whole model is measured in float64 if any of its tensors is."""
    whole = {leaf.arithmetic for leaf in leaves if leaf.rule.scope == "model"}
    if len(whole) < 2:
        return leaves
    return [replace(leaf, arithmetic=torch.float64) if leaf.rule.scope == "model" else leaf for leaf in leaves]


def whole_numbers(members: Sequence[Source], base: Source | None, counters: Counters = "first") -> dict[str, Tensor]:
    """The tensors that are no floats, as they are merged.

    Raises CheckpointError where one that is no count of batches differs between models; ValueError for other
    `counters`.
    """
    if counters not in ("first", "sum"):
        raise ValueError(f"counters are 'first' or 'sum'; got {counters!r}")
    everyone = [*([] if base is None else [base]), *members]
    found = {}
    for name, value in members[0].outline.items():
        if value.is_floating_point():
            continue
        read = [_read(source, name) for source in everyone]
        if name.endswith(COUNTER):
            own = read[len(everyone) - len(members) :]
            found[name] = read[0] if counters == "first" else torch.stack(own).sum(0).to(value.dtype)
            continue
        for source, other in zip(everyone, read, strict=True):
            if not torch.equal(other, read[0]):
                raise CheckpointError(
                    f"tensor {name!r} ({value.dtype}) differs between {everyone[0].label} and {source.label}, and "
                    "whole numbers are not averaged. Give models with one vocabulary and one layout"
                )
        found[name] = read[0]
    return found


def _check(sources: Sequence[Source]) -> None:
    first = sources[0]
    for other in sources[1:]:
        _same(first, other)
    for name, value in first.outline.items():
        kinds = {source.label: source.outline[name].dtype for source in sources}
        if any(kind.is_floating_point != value.is_floating_point() for kind in kinds.values()) or value.is_complex():
            raise CheckpointError(f"tensor {name!r} is of several kinds, or of none that is merged: {kinds}")


def _same(first: Source, other: Source) -> None:
    """Raise CheckpointError unless two models have the same names and shapes; the first that differ are listed."""
    one, two = first.outline, other.outline
    shapes = [
        f"{name} {tuple(value.shape)} and {tuple(two[name].shape)}"
        for name, value in one.items()
        if name in two and two[name].shape != value.shape
    ]
    problems = (
        listed([name for name in one if name not in two], f"only in {first.label}"),
        listed([name for name in two if name not in one], f"only in {other.label}"),
        listed(shapes, "of different shapes"),
    )
    if any(problems):
        raise CheckpointError(
            f"{first.label} and {other.label} are not of one network: {'; '.join(filter(None, problems))}. "
            "Give checkpoints of one architecture"
        )


def _statistic(name: str, outline: Mapping[str, Tensor]) -> bool:
    """Whether a tensor is a running statistic of batch norm, which stands beside the other one."""
    layer, _, own = name.rpartition(".")
    return own in STATISTICS and all(f"{layer}.{other}".lstrip(".") in outline for other in STATISTICS)


def _fits(rule: Rule, count: int, base: Source | None) -> None:
    if rule.needs_base and base is None:
        raise ValueError("this merge starts from a base model; give one as `base`")
    if rule.members not in (None, count):
        raise ValueError(f"this merge takes {rule.members} models; got {count}")


def _dtype(name: str, sources: Sequence[Source], dtype: torch.dtype | None) -> torch.dtype:
    kinds = {source.label: source.outline[name].dtype for source in sources}
    if dtype is not None:
        return dtype
    if len(set(kinds.values())) > 1:
        told = ", ".join(f"{kind} in {label}" for label, kind in kinds.items()).replace("torch.", "")
        raise CheckpointError(f"tensor {name!r} is {told}. Give the `dtype` that the merged model shall have")
    return next(iter(kinds.values()))


def _read(source: Source, name: str) -> Tensor:
    outline = source.outline[name]
    out = torch.empty(outline.numel(), dtype=outline.dtype)
    source.read(name, 0, out)
    return out.view(outline.shape)
