"""Comparing ensembles member by member, and files that are changed on purpose."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from core.families import normal
from pluria.core.ensemble import Ensemble
from pluria.core.errors import FileFormatError
from pluria.store import load, save
from pluria.store.file import _digest
from pluria.store.tensors import opened, read_tensor, write_tensors


def assert_same(found: Ensemble, wanted: Ensemble) -> None:
    """Members, weights and every tensor bit for bit, and which names are tied."""
    assert found.members == wanted.members
    assert torch.equal(found.weights, wanted.weights)
    assert list(found.families) == list(wanted.families)
    assert ties(found) == ties(wanted)
    for member in wanted.members:
        one, other = found.params(member), wanted.params(member)
        for name, value in other.items():
            assert (one[name].dtype, one[name].shape) == (value.dtype, value.shape)
            assert bits(one[name]) == bits(value), name


def bits(value: Tensor) -> bytes:
    return value.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()


def ties(ensemble: Ensemble) -> dict[str, str]:
    first: dict[int, str] = {}
    return {name: first.setdefault(id(family), name) for name, family in ensemble.families.items()}


def parts(path: Path) -> tuple[dict[str, str], dict[str, Tensor]]:
    """Metadata and tensors of a file."""
    with opened(path, FileFormatError) as handle:
        return dict(handle.metadata()), {name: read_tensor(handle, name) for name in handle.keys()}  # noqa: SIM118


def rewrite(path: Path, change: Callable[[Any, dict[str, Tensor]], object]) -> None:
    """Change a file's content and tensors in place; the digest is made to fit, as another writer would."""
    texts, tensors = parts(path)
    content = json.loads(texts["content"])
    change(content, tensors)
    texts["content"] = json.dumps(content)
    write_tensors(path, tensors, {**texts, "digest": _digest(texts["content"], tensors)})


def network(seed: int = 0) -> dict[str, Tensor]:
    return {
        "conv.weight": normal(4, 3, 2, 2, seed=seed),
        "conv.bias": normal(4, seed=seed + 1),
        "n": torch.tensor(seed),
    }


def assert_kept(tmp_path: Path, ensemble: Ensemble) -> Ensemble:
    """The round trip through a file gives the same members; returns what was read."""
    save(tmp_path / "e.pluria", ensemble)
    found = load(tmp_path / "e.pluria")
    assert_same(found, ensemble)
    return found
