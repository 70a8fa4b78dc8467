"""Files that hold every kind of family, fresh for each test."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from golden.make import golden
from pluria.core.ensemble import Ensemble, join, stack
from pluria.sample import low_precision
from pluria.store import packed, save

PARAMS = {"w.weight": torch.arange(12.0).view(3, 4) / 8, "b": torch.ones(3)}


def ensembles() -> dict[str, Ensemble]:
    """Every kind of family, in a file small enough to change by hand."""
    made = golden()
    low = low_precision(PARAMS, members=3, format="int4", granularity=2)
    kept = stack([PARAMS, PARAMS]).take([1, 0])
    return {
        "low": low,
        "kept": kept,
        "packed": packed(low_precision(PARAMS, members=3, format="int4-asymmetric")),
        "planes": packed(low, form="planes"),
        "line": made["families"]["line"],
        "cloud": made["families"]["cloud"],
        "union": join(low.first(1), kept, weights=torch.tensor([2.0, 1.0, 1.0])),
        "nf4": low_precision(PARAMS, members=2, format="nf4"),
        "fp8": low_precision(PARAMS, members=2, format="fp8-e4m3"),
    }


@pytest.fixture(scope="session")
def master(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("master") / "e.pluria"
    save(path, ensembles(), about={"labels": ["a", "b"]})
    return path.read_bytes()


@pytest.fixture
def file(tmp_path: Path, master: bytes) -> Path:
    (tmp_path / "e.pluria").write_bytes(master)
    return tmp_path / "e.pluria"
