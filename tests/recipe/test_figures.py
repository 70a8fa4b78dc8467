"""Figures of a whole run from made-up predictions: what is chosen, on which rows, and how seeds are put together."""

from __future__ import annotations

import json
import statistics
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from pluria.pool import fit_temperature, mean_probability
from pluria.recipe.figures import figures
from pluria.recipe.folder import RunFolder
from pluria.recipe.measure import measure
from pluria.recipe.named import FULL
from pluria.recipe.outputs import Outputs
from pluria.recipe.plan import Job
from pluria.recipe.prepare import Prepared, prepare
from pluria.recipe.resolve import Rows
from pluria.recipe.schema import ONLY
from pluria.score import nll
from pluria.zoo.dataset import Dataset
from recipe.tiny import recipe, write_all

ARMS = [
    {"method": "low_precision", "members": 2, "refresh": False, "each": {"format": ["int3", "int5"]}},
    {"method": "isotropic", "members": 2, "std": 0.1, "refresh": False},
]


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    return prepare(recipe(write_all(tmp_path_factory.mktemp("figures")), arms=ARMS, seeds=[0, 1]))


def made_up(job: Job, rows: int, part: str) -> Tensor:
    """Logits of a job that follow its name and seed."""
    seed = sum(map(ord, f"{job.name} {job.seed} {part}"))
    return torch.randn(job.arm.members, rows, 3, generator=torch.Generator().manual_seed(seed))


def keep(prepared: Prepared, folder: RunFolder, better: dict[str, float] | None = None) -> None:
    """Keep made-up outputs; those of the jobs named by `better` lean towards the calibration labels."""
    for job in prepared.jobs:
        parts = {
            name: made_up(job, len(part), name)
            for name, part in (("calibration", prepared.rows.calibration), ("figures", prepared.rows.figures))
        }
        lean = (better or {}).get(job.name, 0.0)
        parts["calibration"] += lean * torch.nn.functional.one_hot(prepared.rows.calibration.targets, 3)
        for position in range(job.arm.members):
            for name, value in parts.items():
                folder.keep(job.place(ONLY), name, position, value[position], 0.25)


def found(prepared: Prepared, folder: RunFolder, rows: Rows | None = None) -> dict[str, Any]:
    return figures(replace(prepared, rows=rows or prepared.rows, notes=["a note"]), folder, "")


def place(prepared: Prepared, name: str, seed: int) -> str:
    return next(job for job in prepared.jobs if job.id == (name, seed)).place(ONLY)


def relabelled(rows: Dataset) -> Dataset:
    """The same inputs with other labels."""
    return Dataset(rows.inputs, (rows.targets + 1) % 3, rows.classes, rows.name)


@pytest.fixture(scope="module")
def folder(prepared: Prepared, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    made = RunFolder(tmp_path_factory.mktemp("kept"))
    keep(prepared, made)
    return made


@pytest.fixture(scope="module")
def held(prepared: Prepared, folder: RunFolder) -> dict[str, Any]:
    return found(prepared, folder)


def arm(held: dict[str, Any], name: str) -> dict[str, Any]:
    (one,) = [each for each in held["arms"] if each["name"] == name]
    return one


def test_figures_are_those_of_the_kept_outputs(prepared: Prepared, folder: RunFolder, held: dict[str, Any]) -> None:
    one = arm(held, "INT-3 stratified × 2")
    each = []
    for seed in (0, 1):
        parts = []
        for name, rows in (("calibration", prepared.rows.calibration), ("figures", prepared.rows.figures)):
            parts.append(
                Outputs.of(folder.outputs([place(prepared, "INT-3 stratified × 2", seed)], 2, name), rows.targets)
            )
        each.append(measure(*parts).figures)
    for part in ("scores", "scaled", "diversity", "geometric"):
        for name in each[0][part]:
            mean = statistics.fmean(figure[part][name] for figure in each)
            assert one[part][name] == pytest.approx(mean, abs=1e-15), (part, name)
    for name in ("temperature", "calibration_nll", "calibration_nll_scaled"):
        assert one[name] == pytest.approx(statistics.fmean(figure[name] for figure in each), abs=1e-15)
    spread = statistics.stdev(figure["scores"]["nll"] for figure in each)
    assert one["spread"]["scores"]["nll"] == pytest.approx(spread)
    assert one["curve"][0]["nll"] == pytest.approx(statistics.fmean(figure["curve"][0]["nll"] for figure in each))
    assert one["seeds"] == [0, 1]
    assert one["reliability"] == each[0]["reliability"]
    assert arm(held, FULL)["spread"]["scores"]["nll"] == 0
    assert arm(held, FULL)["seeds"] == [0]


def test_differences_are_paired_with_full_precision(
    prepared: Prepared, folder: RunFolder, held: dict[str, Any]
) -> None:
    y = prepared.rows.figures.targets

    def values(name: str, seed: int, members: int) -> Tensor:
        return nll(mean_probability(folder.outputs([place(prepared, name, seed)], members, "figures").double()), y)

    own = (values("INT-5 stratified × 2", 0, 2) + values("INT-5 stratified × 2", 1, 2)) / 2
    gap = arm(held, "INT-5 stratified × 2")["difference"]["nll"]
    assert gap["estimate"] == pytest.approx(float((own - values(FULL, 0, 1)).mean()), abs=1e-12)
    assert gap["low"] < gap["estimate"] < gap["high"]
    none = arm(held, FULL)["difference"]["nll"]
    assert (none["estimate"], none["low"], none["high"]) == (0, 0, 0)


@pytest.mark.parametrize("name", ["INT-3 stratified × 2", "isotropic std 0.1 × 2"])
def test_the_main_arm_is_the_best_on_calibration_rows(prepared: Prepared, tmp_path: Path, name: str) -> None:
    folder = RunFolder(tmp_path)
    keep(prepared, folder, {name: 1.5, FULL: 5.0, "INT-5 nearest": 3.0})
    held = found(prepared, folder)
    assert held["main"] == name
    assert arm(held, name)["control"] is False
    assert arm(held, FULL)["calibration_nll_scaled"] < arm(held, name)["calibration_nll_scaled"], "controls are beside"


@pytest.mark.parametrize("name", ["INT-2 nearest", "INT-4 nearest", FULL])
def test_the_best_single_model_within_the_bits_is_chosen_on_calibration_rows(
    prepared: Prepared, tmp_path: Path, name: str
) -> None:
    folder = RunFolder(tmp_path)
    keep(prepared, folder, {name: 6.0})
    held = found(prepared, folder)
    bits = {each["name"]: each["cost"] for each in held["arms"]}
    for low in ("INT-3 stratified × 2", "INT-5 stratified × 2"):
        for accounting in ("bits_members", "bits_planes"):
            best = held["equal_bits"][low][accounting]
            assert bits[best]["bits_members"] <= bits[low][accounting]
            fits = name in bits and bits[name]["bits_members"] <= bits[low][accounting]
            assert (best == name) is fits
    assert set(held["equal_bits"]) == {"INT-3 stratified × 2", "INT-5 stratified × 2"}


def test_a_single_model_that_is_too_large_is_not_chosen(prepared: Prepared, tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    keep(prepared, folder, {FULL: 9.0, "BF16 nearest": 8.0, "INT-8 nearest": 7.0})
    held = found(prepared, folder)
    chosen = set(held["equal_bits"]["INT-3 stratified × 2"].values())
    assert not chosen & {FULL, "BF16 nearest", "INT-8 nearest"}


def test_candidates_that_are_not_chosen_are_not_shown(prepared: Prepared, held: dict[str, Any]) -> None:
    chosen = {name for best in held["equal_bits"].values() for name in best.values()}
    names = {each["name"] for each in held["arms"]}
    candidates = {job.name for job in prepared.jobs if job.candidate}
    assert names & candidates == chosen & candidates
    assert chosen <= names
    assert all("candidate" not in each for each in held["arms"])


def test_labels_of_the_figure_rows_choose_nothing(prepared: Prepared, folder: RunFolder, held: dict[str, Any]) -> None:
    one = held
    two = found(prepared, folder, Rows(prepared.rows.calibration, relabelled(prepared.rows.figures)))
    assert one["main"] == two["main"]
    assert one["equal_bits"] == two["equal_bits"]
    assert [each["name"] for each in one["arms"]] == [each["name"] for each in two["arms"]]
    for first, second in zip(one["arms"], two["arms"], strict=True):
        assert first["temperature"] == second["temperature"]
        assert first["calibration_nll_scaled"] == second["calibration_nll_scaled"]
        assert first["scores"]["nll"] != second["scores"]["nll"]
    # The control that the headline names is chosen on calibration rows as well.
    rivals = [each["headline"].split("Of the controls, ")[1].split(" with temperature")[0] for each in (one, two)]
    assert rivals[0] == rivals[1]


def test_outputs_on_the_figure_rows_choose_nothing(prepared: Prepared, tmp_path: Path, held: dict[str, Any]) -> None:
    folder = RunFolder(tmp_path)
    keep(prepared, folder)
    for job in prepared.jobs:
        for position in range(job.arm.members):
            outputs = folder.outputs([job.place(ONLY)], job.arm.members, "figures")[position]
            folder.keep(job.place(ONLY), "figures", position, outputs.flip(0), 0.25)
    other = found(prepared, folder)
    assert other["main"] == held["main"]
    assert other["equal_bits"] == held["equal_bits"]
    assert arm(other, FULL)["scores"] != arm(held, FULL)["scores"]


def test_costs(prepared: Prepared, held: dict[str, Any]) -> None:
    count = sum(value.numel() for value in prepared.sources[ONLY].model.state_dict().values())
    weights = {name: value for name, value in prepared.sources[ONLY].model.named_parameters() if value.ndim > 1}
    rounded = sum(value.numel() for value in weights.values())
    channels = sum(len(value) for value in weights.values())
    state = prepared.sources[ONLY].model.state_dict().values()
    others = 8 * sum(value.numel() * value.element_size() for value in state) - 32 * rounded
    one, single = arm(held, "INT-3 stratified × 2")["cost"], arm(held, "INT-3 nearest")["cost"]
    assert one["parameters"] == count
    assert one["forwards"] == 2
    assert one["seconds"] == 1.0
    assert one["backward_passes"] == 0
    assert single["forwards"] == 1
    # Each member by itself: 3 bits a weight and one float32 scale a channel; what is not rounded is shared.
    assert single["bits_members"] == 3 * rounded + 32 * channels + others
    assert arm(held, FULL)["cost"]["bits_members"] == 32 * rounded + others
    assert one["bits_members"] == 2 * (3 * rounded + 32 * channels) + others
    assert one["bits_planes"] == (3 + 2) * rounded + 32 * channels + others


def test_the_value_is_json_and_says_what_was_run(prepared: Prepared, held: dict[str, Any]) -> None:
    assert json.loads(json.dumps(held, allow_nan=False)) == held
    assert held["notes"] == ["a note"]
    assert held["classes"] == ["0", "1", "2"]
    assert [row["name"] for row in held["noise"]] in (
        [],
        ["conv1.weight", "conv2.weight", "conv3.weight", "head.weight"],
    )
    assert len(held["disagreed"]) == 12
    assert held["recipe"] == prepared.recipe.model_dump(mode="json")


def test_temperature_of_an_arm_is_the_mean_of_its_seeds(
    prepared: Prepared, folder: RunFolder, held: dict[str, Any]
) -> None:
    y = prepared.rows.calibration.targets
    fitted = []
    for seed in (0, 1):
        outputs = folder.outputs([place(prepared, "INT-5 stratified × 2", seed)], 2, "calibration").double()
        fitted.append(fit_temperature(mean_probability(outputs), y).value)
    assert arm(held, "INT-5 stratified × 2")["temperature"] == pytest.approx(sum(fitted) / 2)
