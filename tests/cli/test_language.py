"""pluria perplexity within this process."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import pluria as library
from cli.conftest import Pluria
from language.words import TEXT, language_folder
from pluria.core.params import params_of
from pluria.language import fit_token_temperature, perplexity, tokenizer_in, tokens_of

pytest.importorskip("transformers", reason="transformers is not installed")

COMMAND = ("perplexity", "folder", "--text", "text.txt")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a tiny language model and a text."""
    monkeypatch.chdir(tmp_path)
    language_folder(tmp_path / "folder")
    (tmp_path / "text.txt").write_text(f"{TEXT} " * 4)
    return tmp_path


def test_the_table_and_its_figures(here: Path, pluria: Pluria) -> None:
    done = pluria(*COMMAND, "--format", "int3", "--members", 3, "--json")
    assert done.code == 0, done.err
    assert done.err == "temperatures are fitted on the first 18 tokens, figures are of the other 54\n"
    found = json.loads(done.out)
    rows = {row["name"]: row for row in found["rows"]}
    assert list(rows) == [
        "full precision",
        "full precision, temperature",
        "int3 nearest",
        "int3 nearest, temperature",
        "int3 ensemble",
        "int3 ensemble, temperature",
    ]
    model = library.load("folder")
    tokens = tokens_of(tokenizer_in("folder"), Path("text.txt").read_text())
    one = library.single(params_of(model))
    assert rows["full precision"]["nats"] == pytest.approx(perplexity(model, one, tokens[18:]).nats)
    value = fit_token_temperature(model, one, tokens[:18])
    assert rows["full precision, temperature"]["temperature"] == pytest.approx(value)
    members = library.low_precision(model, format="int3", members=3)
    assert rows["int3 ensemble"]["nats"] == pytest.approx(perplexity(model, members, tokens[18:]).nats)
    assert rows["int3 ensemble"]["members"] == 3


def test_the_table_is_printed(here: Path, pluria: Pluria, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    done = pluria(*COMMAND, "--members", 2, "--granularity", 4, "--pool", "logit", "--context", 8, "--quiet")
    assert (done.code, done.err) == (0, "")
    lines = done.out.splitlines()
    assert all(name in done.out for name in ("perplexity", "member", "MI", "agreement"))
    assert "…" not in done.out
    both = [line for line in lines if line.strip().startswith("int5 ensemble ")]
    assert [line.split()[2] == "1.000" for line in both] == [True, False]


def test_a_dry_run_says_what_would_be_done(here: Path, pluria: Pluria) -> None:
    done = pluria(*COMMAND, "--members", 2, "--dry-run")
    wanted = {"arms": ["full precision", "int5 nearest", "int5 ensemble"], "forwards": 4}
    assert json.loads(done.out) == {**wanted, "tokens": 72, "fit": 18, "figures": 54}


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--fit", 1.5), "--fit is a share of the text between 0 and 1; got 1.5"),
        (("--fit", 0.01), "too few to fit a temperature on 1"),
        (("--context", 99), "the network reads 16 tokens at once, so a context of 99 is too long"),
        (("--context", 8, "--stride", 8), "the stride is in 1..context - 1; got 8 and 8"),
        (("--pool", "vote"), "--pool is probability or logit; got 'vote'"),
        (("--batch", 0), "--batch and --block are 1 or more; got 0 and 256"),
        (("--format", "int99"), "int99"),
        (("--text", "none.txt"), "No such file"),
        (("--text", "empty.txt"), "the text is empty: give some words"),
        (("--text", "bytes.txt"), "bytes.txt is no text in UTF-8"),
    ],
)
def test_mistakes_end_in_one_message(here: Path, pluria: Pluria, options: tuple[object, ...], said: str) -> None:
    (here / "empty.txt").write_text("\n")
    (here / "bytes.txt").write_bytes(b"\xff\xfe\x00")
    done = pluria(*COMMAND, *options)
    assert done.code == 2
    assert done.err.startswith("error: ")
    assert said in done.err
    assert done.out == ""


def test_a_tokenizer_that_disagrees(here: Path, pluria: Pluria) -> None:
    language_folder(here / "odd", extra=2)
    done = pluria("perplexity", "odd", "--text", "text.txt")
    assert done.code == 2
    assert "tokenizer and network disagree" in done.err
