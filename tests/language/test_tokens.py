"""Tokens of texts and windows over them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import pluria
from language.words import TEXT, WORDS, language_folder, tokenizer
from pluria.core.errors import CheckpointError
from pluria.language import check_vocabulary, context_of, tokenizer_in, tokens_of, windows
from store.tiny import tiny

pytest.importorskip("transformers", reason="transformers is not installed")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return language_folder(tmp_path_factory.mktemp("language"))


def test_the_tokenizer_of_a_folder(folder: Path) -> None:
    found = tokenizer_in(folder, model=pluria.load(folder))
    tokens = tokens_of(found, "the cat sat")
    assert tokens.tolist() == [2, 3, 5]
    assert tokens.dtype == torch.int64
    assert found.decode(tokens) == "the cat sat"


@pytest.mark.parametrize("text", ["", "  \n"])
def test_an_empty_text_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="the text is empty: give some words"):
        tokens_of(tokenizer(), text)


def test_what_is_no_text_is_refused() -> None:
    with pytest.raises(TypeError, match="a text is wanted, not list"):
        tokens_of(tokenizer(), ["the"])  # type: ignore[arg-type]


def test_a_text_without_tokens_is_refused() -> None:
    with pytest.raises(ValueError, match="makes no tokens of 'the'"):
        tokens_of(lambda text, **options: {"input_ids": []}, "the")


def test_a_tokenizer_and_a_network_that_disagree(tmp_path: Path) -> None:
    folder = language_folder(tmp_path, extra=3)
    with pytest.raises(CheckpointError, match="has token 13, and the network's embedding has 11 rows"):
        tokenizer_in(folder, model=pluria.load(folder))
    check_vocabulary(tokenizer(), tiny("llama", words=len(WORDS) + 5))  # padded embeddings are common


def test_a_network_of_images_has_no_vocabulary() -> None:
    check_vocabulary(tokenizer(), tiny("vit"))
    check_vocabulary(tokenizer(), torch.nn.Linear(2, 2))


def test_a_folder_without_a_tokenizer(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="the folder has no tokenizer that can be read"):
        tokenizer_in(tmp_path)
    with pytest.raises(CheckpointError, match="there is no such folder"):
        tokenizer_in(tmp_path / "none")


def test_a_tokenizer_that_is_code_is_not_run(tmp_path: Path) -> None:
    language_folder(tmp_path)
    file = tmp_path / "tokenizer_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "auto_map": {"AutoTokenizer": ["own.Own", None]}}))
    with pytest.raises(CheckpointError, match="the tokenizer is code that comes with the folder"):
        tokenizer_in(tmp_path)
    file.write_text("{")
    with pytest.raises(CheckpointError, match="is not JSON"):
        tokenizer_in(tmp_path)


def test_the_context_of_networks() -> None:
    assert [context_of(tiny(kind, context=24)) for kind in ("llama", "gpt2", "bert")] == [24, 24, 24]
    assert context_of(torch.nn.Linear(2, 2)) is None


def test_a_short_text_is_one_window() -> None:
    found = windows(torch.tensor([4, 5, 6]), context=9)
    assert found.tokens.tolist() == [[4, 5, 6]]
    assert found.targets.tolist() == [[5, 6, -100]]
    assert (len(found), found.predicted) == (1, 2)


@given(st.integers(2, 40), st.integers(2, 12), st.data())
def test_each_token_is_predicted_once_with_the_least_context(length: int, context: int, data: st.DataObject) -> None:
    stride = data.draw(st.integers(1, context - 1))
    tokens = torch.arange(length)
    found = windows(tokens, context=context, stride=stride)
    predicted = found.targets[found.targets >= 0]
    assert predicted.tolist() == list(range(1, length))
    assert found.tokens.shape[1] == min(context, length)
    for row, targets in zip(found.tokens.tolist(), found.targets.tolist(), strict=True):
        for place, target in enumerate(targets):
            assert target < 0 or row[place] == target - 1
            assert target < 0 or place + 1 >= min(context - stride, target)


@pytest.mark.parametrize(
    ("tokens", "context", "stride", "said"),
    [
        (torch.tensor([3]), 8, None, "two tokens or more are wanted"),
        (torch.zeros(2, 3), 8, None, "two tokens or more are wanted"),
        (torch.arange(5), 1, None, "got 1 and 1"),
        (torch.arange(5), 4, 4, "stride is in 1..context - 1; got 4 and 4"),
        (torch.arange(5), 4, 0, "got 4 and 0"),
    ],
)
def test_windows_that_do_not_serve(tokens: torch.Tensor, context: int, stride: int | None, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        windows(tokens, context=context, stride=stride)


def test_a_long_text_does_not_warn(folder: Path) -> None:
    assert len(tokens_of(tokenizer_in(folder), TEXT * 40)) > 500
