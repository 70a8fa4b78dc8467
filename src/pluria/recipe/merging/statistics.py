"""Merges of files by statistics of data: a safetensors file of tables for each model, in the order of the models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from pluria.core.errors import CheckpointError
from pluria.merge.fisher import fisher as fisher_merge
from pluria.merge.information import fisher_information
from pluria.merge.regmean import regmean as regmean_merge
from pluria.merge.rule import Rules
from pluria.store.tensors import opened, read_tensor


def fisher(
    *, statistics: Sequence[str], floor: float = 1e-6, normalise: bool = True, favour_first: bool = False
) -> Rules:
    """Fisher merging with tables that are stored, such as those of `fisher_information`."""
    return fisher_merge(_tables(statistics), floor=floor, normalise=normalise, favour_first=favour_first)


def regmean(*, statistics: Sequence[str], off: float = 0.9) -> Rules:
    """RegMean with second moments that are stored; for weights whose outputs are their first axis."""
    return regmean_merge(_tables(statistics), off=off)


def measured(
    kind: str, network: nn.Module, inputs: Sequence[Tensor], options: Mapping[str, Any]
) -> Mapping[str, Tensor]:
    """A table of one network on its own inputs, for a later merge by `fisher` or `regmean`.

    Raises ValueError for another kind, and for options that it does not have.
    """
    known = {"fisher": ("sampled", "likelihood"), "regmean": ()}
    if kind not in known:
        raise ValueError(f"statistics are of {' or '.join(known)}; got {kind!r}")
    if odd := [name for name in options if name not in known[kind]]:
        raise ValueError(f"statistics of {kind} have no option {odd[0]!r}")
    if kind == "fisher":
        return fisher_information(network, inputs, **options)
    from pluria.sample.moments import moments  # here, since merges of files need nothing that draws members

    return moments(network, inputs).second


def _tables(paths: Sequence[str]) -> list[dict[str, Tensor]]:
    if isinstance(paths, str) or not all(isinstance(path, str) for path in paths):
        raise ValueError(f"statistics are a list of files, one for each model, as [a.safetensors, ...]; got {paths!r}")
    found = []
    for path in paths:
        with opened(path, CheckpointError) as handle:
            found.append({name: read_tensor(handle, name, mapped=True) for name in handle.keys()})  # noqa: SIM118
    return found
