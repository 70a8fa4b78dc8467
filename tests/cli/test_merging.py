"""pluria merge: what it prints where, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from cli.conftest import Pluria


@pytest.fixture
def models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.chdir(tmp_path)
    for number in range(3):
        save_file({"w": torch.full((5,), float(number))}, f"{number}.safetensors")
    return [f"{number}.safetensors" for number in range(3)]


def test_the_cost_goes_to_stderr_and_the_result_to_stdout(models: list[str], pluria: Pluria) -> None:
    done = pluria("merge", "linear", *models, "--weights", "1,1,2", "--out", "out.safetensors")
    assert (done.code, done.out) == (0, "wrote out.safetensors: 5 parameters, linear\n")
    assert "3 models of 5 parameters in 1 tensors, read once: 60 bytes in, 20 bytes out of" in done.err
    assert load_file("out.safetensors")["w"].tolist() == [1.25] * 5
    assert pluria("merge", "linear", *models, "--out", "out.safetensors", "--quiet").err == ""


def test_a_dry_run_writes_nothing_and_json_tells_the_cost(models: list[str], pluria: Pluria) -> None:
    done = pluria("merge", "ties", *models[1:], "--base", models[0], "--out", "o.safetensors", "--dry-run", "--json")
    told = json.loads(done.out)
    assert (told["written"], told["cost"]["models"], told["cost"]["readings"]) == (False, 3, 7)
    assert "read up to 7 times" in done.err
    assert not Path("o.safetensors").exists()


def test_options_of_the_method_and_a_recipe(models: list[str], pluria: Pluria) -> None:
    given = ("--base", models[0], "--set", "scale=0.5", "--out", "out.safetensors", "--threads", 2)
    assert pluria("merge", "task_arithmetic", *models[1:], *given).code == 0
    assert load_file("out.safetensors")["w"].tolist() == [1.5] * 5
    Path("m.yaml").write_text("{merge_method: linear, models: [{model: 0.safetensors}, {model: 1.safetensors}]}")
    assert pluria("merge", "m.yaml", "--out", "out.safetensors").code == 0
    assert load_file("out.safetensors")["w"].tolist() == [0.5] * 5


def test_seed_and_counters_go_with_a_recipe(models: list[str], pluria: Pluria) -> None:
    for number in range(3):
        held = {"w": torch.arange(64.0) * number, "bn.num_batches_tracked": torch.tensor(number)}
        save_file(held, f"{number}.safetensors")
    entries = ", ".join(f"{{model: {model}, parameters: {{density: 0.5}}}}" for model in models[1:])
    Path("m.yaml").write_text(f"{{merge_method: dare_linear, base_model: {models[0]}, models: [{entries}]}}")
    made = {}
    for seed in (0, 1):
        assert pluria("merge", "m.yaml", "--seed", seed, "--counters", "sum", "--out", f"s{seed}.safetensors").code == 0
        made[seed] = load_file(f"s{seed}.safetensors")
    assert not torch.equal(made[0]["w"], made[1]["w"])
    assert int(made[0]["bn.num_batches_tracked"]) == 3
    with safe_open("s1.safetensors", "pt") as file:
        told = json.loads(file.metadata()["merge"])
    assert (told["seed"], told["counters"]) == (1, "sum")
    done = pluria("merge", "m.yaml", "--counters", "mean", "--out", "x.safetensors")
    assert done.code == 2
    assert "counters are 'first' or 'sum'; got 'mean'" in done.err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("linear", "0.safetensors"), "--out is missing"),
        (("linear", "--out", "x.safetensors"), "nothing to merge; give one model or more"),
        (("linear", "0.safetensors", "--out", "0.safetensors"), "0.safetensors is 0.safetensors, or one holds"),
        (("linear", "none.pt", "--out", "x.safetensors"), "No such file or directory (none.pt)"),
        (("linear", "0.safetensors", "--weights", "a", "--out", "x.safetensors"), "--weights are numbers with commas"),
        (("ties", "0.safetensors", "--set", "density", "--out", "x.safetensors"), "--set takes key=value"),
        (
            ("ties", "0.safetensors", "--base", "1.safetensors", "--set", "density=2", "--out", "x.safetensors"),
            "(0, 1]",
        ),
        (
            ("ties", "0.safetensors", "--base", "1.safetensors", "--set", "density=some", "--out", "x.safetensors"),
            "option 'density': Input should be a valid number; or",
        ),
        (
            ("ties", "0.safetensors", "--base", "1.safetensors", "--set", "spec=peff", "--out", "x.safetensors"),
            "option 'spec': Input should be 'paper', 'mergekit', 'peft' or 'sd-mecha' (got 'peff')",
        ),
        (("ties", "0.safetensors", "--out", "x.safetensors"), "this merge starts from a base model"),
        (
            ("ties", "0.safetensors", "--base", "1.safetensors", "--set", "scale=.nan", "--out", "x.safetensors"),
            "option 'scale': numbers are finite (got nan)",
        ),
        (
            ("dare", "0.safetensors", "--base", "1.safetensors", "--set", "scale=[.inf]", "--out", "x.safetensors"),
            "option 'scale': numbers are finite (got inf)",
        ),
        (
            ("linear", "0.safetensors", "1.safetensors", "--weights", "nan,1", "--out", "x.safetensors"),
            "finite",
        ),
        (("linear", "0.safetensors", "--base", "1.safetensors", "--out", "x.safetensors"), "linear reads no base"),
        (("linear", "0.safetensors", "--counters", "mean", "--out", "x.safetensors"), "'first' or 'sum'; got 'mean'"),
        (("m.yaml", "0.safetensors", "--out", "x.safetensors"), "models: m.yaml says that itself"),
        (("m.yaml", "--set", "a=1", "--out", "x.safetensors"), "--set: m.yaml says that itself"),
        (("m.yaml", "--out", "x.safetensors"), "cannot read the recipe m.yaml"),
    ],
)
def test_mistakes(models: list[str], pluria: Pluria, arguments: tuple[str, ...], said: str) -> None:
    done = pluria("merge", *arguments)
    assert done.code == 2
    assert said in done.err
    assert not Path("x.safetensors").exists()
