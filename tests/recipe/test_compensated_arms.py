"""Arms with error feedback: they read unlabelled rows, and what they leave to plain rounding is named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

import pluria
from core.laws import same_bits
from pluria.recipe.prepare import prepare
from pluria.recipe.run import run
from pluria.recipe.schema import ONLY
from recipe.tiny import CLASSES, recipe

ARM = {"method": "compensated", "members": 3, "format": "int4", "refresh": False}


class Attending(nn.Module):
    """Attention over the rows of a picture; its packed projection is not run as a layer."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(4, 2, batch_first=True)
        self.head = nn.Linear(16, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        rows = x.squeeze(1)
        return self.head(self.attention(rows, rows, rows, need_weights=False)[0].flatten(1))


def test_members_are_those_of_the_calibration_inputs(task: Path) -> None:
    prepared = prepare(recipe(task, arms=[ARM], unlabelled_rows=10, controls=False))
    found = run(prepared.recipe, task / "out")
    model = prepared.sources[ONLY].model
    inputs = [x for x, _ in prepared.rows.calibration.take(slice(0, 10)).batches(16)]
    wanted = pluria.compensated(model, inputs, format="int4", members=3, key=0)
    loaded = pluria.load(task / "out" / "ensemble.pluria")
    assert all(same_bits(loaded.params(2)[name], value) for name, value in wanted.params(2).items())
    (arm,) = [arm for arm in found["arms"] if not arm["control"]]
    weights = sum(v.numel() for v in model.parameters() if v.ndim > 1)
    assert 0 < arm["cost"]["clipped"] < 0.2
    assert arm["cost"]["bits_members"] > 3 * 4 * weights, "codes of their own"


def test_controls(task: Path) -> None:
    names = [job.name for job in prepare(recipe(task, arms=[ARM])).jobs if not job.candidate]
    assert names == [
        "full precision",
        "INT-4 nearest",
        "INT-4 GPTQ",
        "INT-4 stratified × 3",
        "INT-4 compensated × 3",
    ]


def test_what_is_rounded_without_feedback_is_named(task: Path) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        save_file(Attending().state_dict(), task / "attending.safetensors")
    network = {"model": "recipe.test_compensated_arms:Attending", "checkpoint": str(task / "attending.safetensors")}
    notes: Any = prepare(recipe(task, network=network, arms=[ARM])).notes
    assert notes == [
        "network: rounded without feedback, for their inputs are not seen: "
        "attention.in_proj_weight, attention.out_proj.weight"
    ]


def test_layers_that_see_too_few_rows_are_named(task: Path) -> None:
    few = prepare(recipe(task, arms=[ARM], unlabelled_rows=3)).notes
    assert len(few) == 1
    assert few[0].startswith("network: too few unlabelled rows to tell how the inputs of these layers go together")
    assert "(3 for " in few[0]
    many = prepare(recipe(task, arms=[ARM], unlabelled_rows=900)).notes
    assert many == ["unlabelled_rows: 900 are asked for; data (calibration half) has 20, and all of them are taken"]
    assert prepare(recipe(task, unlabelled_rows=900)).notes == [], "nothing reads them"


def test_too_few_rows_without_damping(task: Path) -> None:
    with pytest.raises(pluria.PluriaError, match=r"more inputs, or a larger damping"):
        prepare(recipe(task, arms=[{**ARM, "damping": 0.0}], unlabelled_rows=2))


def test_activations_that_are_not_finite(task: Path) -> None:
    held = load_file(task / "net.safetensors")
    held["norm1.weight"] = held["norm1.weight"].sign() * 3e38
    save_file(held, task / "net.safetensors")
    with pytest.raises(pluria.PluriaError, match=r"NaN or Inf"):
        prepare(recipe(task, arms=[ARM]))


@pytest.mark.parametrize(
    ("changes", "said"),
    [({"format": "nf4"}, "feedback needs integers"), ({"order": "rising"}, "order"), ({"damping": -1.0}, "damping")],
)
def test_mistakes(task: Path, changes: dict[str, Any], said: str) -> None:
    with pytest.raises(pluria.PluriaError) as caught:
        prepare(recipe(task, arms=[{**ARM, **changes}]))
    assert said in str(caught.value)
    assert "GPTQ" not in str(caught.value), "nobody asked for it"
