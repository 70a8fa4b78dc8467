"""Merges that run the network and are asked for what they lack, and manifests that are enough to merge again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from safetensors import safe_open
from safetensors.torch import load_file

from cli.conftest import Pluria
from cli.tuned import BASE, MODELS, NETWORK, same
from pluria.core.params import Params


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("greedy_soup", *MODELS), "this merge runs the network: give the network (--model) and rows (--data)"),
        (("greedy_soup", *MODELS, "--data", "held.npz"), "give both --model and --data"),
        (("greedy_soup", *MODELS, *NETWORK), "give both --model and --data"),
        (("linear", *MODELS, *NETWORK, "--data", "held.npz"), "linear runs no network: leave out --model"),
        (("linear", *MODELS, "--repair"), "--align and --repair run the network: give --model and --data"),
        (("linear", *MODELS, *NETWORK, "--data", "held.npz", "--align", "sort"), "--align is weights or activations"),
        (("ties", *MODELS, *BASE, *NETWORK, "--data", "held.npz", "--repair"), "trained apart, without a base"),
        (("greedy_sup", *MODELS), "no method 'greedy_sup' merges files; did you mean 'greedy_soup'?"),
        (("learned_soup", *MODELS, "--set", "step=3"), "learned_soup has no option 'step'; did you mean 'steps'?"),
        (("mix", *MODELS), "mix needs the option 'matrix'"),
        (("amortised", *MODELS, "--counters", "sum"), "amortised copies counts of batches; leave out --counters"),
        (("m.yaml", *NETWORK, "--data", "held.npz"), "a recipe of mergekit runs no network"),
        (("adamerging", *MODELS, *NETWORK, "--data", "held.npz"), "this merge starts from a base model"),
        (
            ("adamerging", *MODELS, *BASE, *NETWORK, "--data", "held.npz", "--weights", "1,2,3"),
            "adamerging counts all models alike and reads no weights; leave out --weights",
        ),
        (
            ("amortised", *MODELS, "--set", "optimiser=adam", "--set", "rate=0.1", "--weights", "1,2,3"),
            "amortised counts all models alike",
        ),
        (("greedy_soup", *MODELS, *BASE, *NETWORK, "--data", "held.npz"), "greedy_soup reads no base"),
        (("bang", *MODELS, *NETWORK, "--data", "held.npz", "--set", "head=fc"), "the models have no fc to be a head"),
        (
            ("learned_soup", *MODELS, *NETWORK, "--data", "held.npz", "--set", "groups=all"),
            "groups are tensor, layer or model; got 'all'",
        ),
        (("greedy_soup", *MODELS, *NETWORK, "--data", "none.npz"), "none.npz"),
        (("greedy_soup", *MODELS, *NETWORK[:-1], "hidden=[13]", "--data", "held.npz"), "does not fit the network"),
    ],
)
def test_mistakes(models: list[Params], pluria: Pluria, arguments: tuple[Any, ...], said: str) -> None:
    Path("m.yaml").write_text("{merge_method: linear, models: [{model: 0.safetensors}, {model: 1.safetensors}]}")
    done = pluria("merge", *arguments, "--out", "out.safetensors")
    assert done.code == 2
    assert said in done.err
    assert not Path("out.safetensors").exists()


def test_the_manifest_is_enough_to_merge_again(models: list[Params], pluria: Pluria) -> None:
    given = (
        "learned_soup",
        *MODELS[:2],
        *NETWORK,
        "--data",
        "held.npz",
        "--set",
        "steps=2",
        "--out",
        "out.safetensors",
    )
    runs = []
    for more in (("--batch", 100), ("--batch", 100, "--rows", 50), ("--batch", 100, "--repair")):
        assert pluria("merge", *given, *more, "--out", "out.safetensors").code == 0
        with safe_open("out.safetensors", "pt") as file:
            runs.append(json.loads(file.metadata()["merge"])["run"])
    wanted = {"model": "mlp", "argument": {"inputs": 64, "classes": 10, "hidden": [12]}, "data": ["held.npz"]}
    assert {name: runs[0][name] for name in wanted} == wanted
    assert (runs[0]["batch"], runs[0]["align"], runs[0]["repair"]) == (100, None, False)
    assert runs[2]["repair"]
    assert runs[0]["rows_sha256"] == runs[2]["rows_sha256"] != runs[1]["rows_sha256"]


def test_statistics_are_not_written_over_what_they_are_of(models: list[Params], pluria: Pluria) -> None:
    before = load_file(MODELS[0])
    done = pluria("statistics", "fisher", MODELS[0], *NETWORK, "--data", "held.npz", "--out", MODELS[0])
    assert done.code == 2
    assert "or one holds the other" in done.err
    assert same(load_file(MODELS[0]), before)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("fish", "0.safetensors"), "statistics are of fisher or regmean; got 'fish'"),
        (("regmean", "0.safetensors", "--set", "sampled=true"), "statistics of regmean have no option 'sampled'"),
        (("fisher", "none.safetensors"), "none.safetensors"),
    ],
)
def test_mistakes_of_statistics(models: list[Params], pluria: Pluria, arguments: tuple[str, ...], said: str) -> None:
    done = pluria("statistics", *arguments, *NETWORK, "--data", "held.npz", "--out", "out.safetensors")
    assert done.code == 2
    assert said in done.err
    assert not Path("out.safetensors").exists()
