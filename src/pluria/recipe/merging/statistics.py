"""Merges of files by statistics of data: a safetensors file of tables for each model, in the order of the models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from pluria.core.errors import CheckpointError
from pluria.merge.fisher import fisher as fisher_merge
from pluria.merge.regmean import regmean as regmean_merge
from pluria.merge.rule import Rules
from pluria.store.streamed import hashed
from pluria.store.tensors import opened, read_tensor


def fisher(
    *, statistics: Sequence[str], floor: float = 1e-6, normalise: bool = True, favour_first: bool = False
) -> Rules:
    """Fisher merging with tables that are stored, such as those of `fisher_information`."""
    return fisher_merge(_tables(statistics), floor=floor, normalise=normalise, favour_first=favour_first)


def regmean(*, statistics: Sequence[str], off: float = 0.9) -> Rules:
    """RegMean with second moments that are stored; for weights whose outputs are their first axis."""
    return regmean_merge(_tables(statistics), off=off)


def hashes(options: Mapping[str, Any]) -> dict[str, Any]:
    """For a manifest: the files of statistics with their hashes, or nothing."""
    paths = options.get("statistics", ())
    told = [{"file": Path(path).name, "sha256": hashed(Path(path))} for path in paths]
    return {"statistics": told} if told else {}


def _tables(paths: Sequence[str]) -> list[dict[str, Tensor]]:
    if isinstance(paths, str) or not all(isinstance(path, str) for path in paths):
        raise ValueError(f"statistics are a list of files, one for each model, as [a.safetensors, ...]; got {paths!r}")
    found = []
    for path in paths:
        with opened(path, CheckpointError) as handle:
            found.append({name: read_tensor(handle, name, mapped=True) for name in handle.keys()})  # noqa: SIM118
    return found
