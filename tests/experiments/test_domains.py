"""The experiment on domains runs on few images."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest
import torch

from pluria.zoo import Dataset, network

FOLDER = Path(__file__).resolve().parents[2] / "experiments" / "domains"


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    spec = importlib.util.spec_from_file_location("domains", FOLDER / "run.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    for name, value in {"TRAINED": 100, "HELD": 20, "TEST": 20, "SCALES": (0.5,)}.items():
        monkeypatch.setattr(module, name, value)
    return module


def test_every_arm_runs(run: ModuleType) -> None:
    draw = torch.Generator().manual_seed(0)
    images = torch.randint(256, (100, 3, 16, 16), generator=draw, dtype=torch.uint8)
    data = Dataset(images, torch.randint(10, (100,), generator=draw), tuple("abcdefghij"), "noise")
    public = network("cifar_resnet", depth=8).eval()
    before = {name: value.clone() for name, value in public.state_dict().items()}
    found = run.measure(public, data, run.Judge(public, data), 0)
    assert len(found) == 12
    assert all(0 <= one["error"] <= 1 and one["nll"] > 0 for one in found.values())
    assert all(torch.equal(value, before[name]) for name, value in public.state_dict().items())
    assert len(run.table([found, found]).splitlines()) == 2 + 12
