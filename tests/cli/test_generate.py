"""pluria generate within this process."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

import pluria as library
from cli.conftest import Pluria
from language.words import language_folder
from pluria.language import generate, tokenizer_in

pytest.importorskip("transformers", reason="transformers is not installed")

COMMAND = ("generate", "folder", "--prompt", "the cat sat", "--members", 3, "--max-new-tokens", 6)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a tiny language model."""
    monkeypatch.chdir(tmp_path)
    language_folder(tmp_path / "folder")
    return tmp_path


def test_text_for_a_pipe_and_as_data(here: Path, pluria: Pluria) -> None:
    done = pluria(*COMMAND, "--format", "int3", "--temperature", 1.5, "--top-k", 9, "--seed", 4)
    assert done.code == 0, done.err
    model = library.load("folder")
    members = library.low_precision(model, format="int3", members=3, key=4)
    options: dict[str, Any] = {"temperature": 1.5, "top_k": 9, "seed": 4, "max_new_tokens": 6}
    wanted = generate(model, members, "the cat sat", tokenizer=tokenizer_in("folder"), **options)
    assert done.out == f"the cat sat{wanted.text}\n"
    memory, told = done.err.splitlines()
    assert memory.startswith("memory: a working copy of ")
    assert "3 members with caches and tensors of their own, " in memory
    assert told.startswith(f"{len(wanted.tokens)} tokens by 3 members, mean agreement ")
    more = ("--backend", "side_by_side", "--json", "--quiet")
    again = pluria(*COMMAND, "--format", "int3", "--temperature", 1.5, "--top-k", 9, "--seed", 4, *more)
    found = json.loads(again.out)
    assert (found["text"], found["members"], found["prompt"]) == (wanted.text, 3, "the cat sat")
    assert [row["token"] for row in found["tokens"]] == wanted.tokens.tolist()
    assert [row["agreement"] for row in found["tokens"]] == pytest.approx(wanted.agreement.tolist())


def test_several_prompts_at_once(here: Path, pluria: Pluria) -> None:
    both = pluria(*COMMAND, "--prompt", "a dog", "--html", "text.html")
    alone = [pluria(*COMMAND[:2], "--prompt", one, *COMMAND[4:]).out for one in ("the cat sat", "a dog")]
    assert both.out == "\n".join(alone)
    page = Path("text.html").read_text(encoding="utf-8")
    assert [page.count(one) for one in ('class="written"', 'class="bands"')] == [2, 1]
    found = json.loads(pluria(*COMMAND, "--prompt", "a dog", "--json").out)
    assert [one["prompt"] for one in found] == ["the cat sat", "a dog"]
    assert json.loads(pluria(*COMMAND, "--prompt", "a dog", "--dry-run").out)["prompts"] == [3, 2]


def test_a_terminal_sees_colours_and_a_legend(here: Path, pluria: Pluria, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(type(sys.stdout), "isatty", lambda self: True, raising=False)
    monkeypatch.delenv("NO_COLOR", raising=False)
    done = pluria(*COMMAND, "--format", "int2", "--quiet", "--html", "text.html")
    assert "first choice of: " in done.out
    assert "\x1b[3;38;5;136m" in done.out
    assert "<title>A text by an ensemble</title>" in Path("text.html").read_text(encoding="utf-8")
    monkeypatch.setenv("NO_COLOR", "1")
    assert "38;5" not in pluria(*COMMAND, "--format", "int2", "--quiet").out


def test_a_dry_run_writes_nothing(here: Path, pluria: Pluria) -> None:
    done = pluria(*COMMAND, "--html", "text.html", "--dry-run")
    assert json.loads(done.out) == {"prompts": [3], "members": 3, "forwards_at_most": 18}
    assert not Path("text.html").exists()
    # 2 layers, keys and values, a head of size 4, 9 tokens of 4 bytes; and 11 words of 16
    assert "3 members with caches, 752 bytes each; " in pluria(*COMMAND, "--dry-run", "--backend", "loop").err


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--prompt", " "), "the text is empty"),
        (("--prompt", "the cat " * 9), "reads 16 tokens at once, and a prompt of 18 leaves none"),
        (("--max-new-tokens", 14), "a prompt of 3 leaves room for 13 new ones"),
        (("--top-p", 0.5), "give a temperature above 0"),
        (("--pool", "vote"), "pool is 'probability' or 'logit'"),
        (("--html", "none/text.html"), "there is no folder none"),
        (("--format", "int1"), "int1"),
    ],
)
def test_mistakes_end_in_one_message(here: Path, pluria: Pluria, options: tuple[Any, ...], said: str) -> None:
    for more in ((), ("--dry-run",)):
        done = pluria(*COMMAND, "--html", "text.html", *options, *more)
        assert done.code == 2
        assert said in done.err
        assert done.out == ""
    assert not Path("text.html").exists()


def test_a_tokenizer_of_another_network(here: Path, pluria: Pluria) -> None:
    language_folder(here / "other", extra=3)
    done = pluria("generate", "other", "--prompt", "the cat")
    assert done.code == 2
    assert "tokenizer and network disagree" in done.err
