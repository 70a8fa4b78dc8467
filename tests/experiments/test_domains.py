"""The experiment on domains runs on few images, chooses on held ones alone, and its page shows the stored figures."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

from pluria.merge import linear, task_arithmetic
from pluria.zoo import Dataset, network

FOLDER = Path(__file__).resolve().parents[2] / "experiments" / "domains"


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.setattr(sys, "path", list(sys.path))
    spec = importlib.util.spec_from_file_location("domains", FOLDER / "run.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    for name, value in {"TRAINED": 60, "HELD": 20, "TEST": 20}.items():
        monkeypatch.setattr(module, name, value)
    return module


def images() -> Dataset:
    draw = torch.Generator().manual_seed(0)
    pixels = torch.randint(256, (100, 3, 16, 16), generator=draw, dtype=torch.uint8)
    return Dataset(pixels, torch.randint(10, (100,), generator=draw), tuple("abcdefghij"), "noise")


def test_every_arm_runs_and_the_public_network_stays(run: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    numbers = {"task arithmetic": ((0.5, 1.0), lambda scale: task_arithmetic(scale=scale))}
    monkeypatch.setattr(run, "CHOSEN", numbers)
    public, data = network("cifar_resnet", depth=8).eval(), images()
    before = {name: value.clone() for name, value in public.state_dict().items()}
    found = run.measure(public, data, data, 0)
    assert len(found) == 8
    assert all(0 <= one["error"] <= 1 and one["nll"] > 0 for one in found.values())
    assert all(torch.equal(value, before[name]) for name, value in public.state_dict().items())
    assert found["task arithmetic"]["chosen"] in (0.5, 1.0)
    assert len(run.table([found, found]).splitlines()) == 2 + 8


def test_rows_that_give_figures_choose_nothing(run: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    loss = run.Judge.loss

    def noted(judge: object, params: object) -> float:
        asked.append(sum(len(rows.targets) for rows in judge.held))  # type: ignore[attr-defined]
        return float(loss(judge, params))

    monkeypatch.setattr(run.Judge, "loss", noted)
    monkeypatch.setattr(run, "CHOSEN", {"mean": ((1.0, 2.0), lambda scale: linear())})
    judge = run.Judge(network("cifar_resnet", depth=8).eval(), images())
    for held, test in zip(judge.held, judge.test, strict=True):
        assert not {row.numpy().tobytes() for row in held.inputs} & {row.numpy().tobytes() for row in test.inputs}
    run.measure(network("cifar_resnet", depth=8).eval(), images(), images(), 0)
    assert asked == [4 * 20] * 2


def test_the_page_shows_the_stored_figures(run: ModuleType) -> None:
    found = json.loads((FOLDER / "figures.json").read_text())
    assert len(found["seeds"]) == 3
    assert run.table(found["seeds"]) in (FOLDER / "README.md").read_text()
    assert found["date"] in (FOLDER / "README.md").read_text()
