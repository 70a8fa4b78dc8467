"""Pieces of a text, token by token."""

from __future__ import annotations

import pytest

from language.words import tokenizer
from pluria.language.pieces import pieces_of

pytest.importorskip("transformers", reason="transformers is not installed")


class Bytes:
    """A tokenizer of bytes."""

    def decode(self, tokens: list[int], **options: bool) -> str:
        assert options == {"skip_special_tokens": True, "clean_up_tokenization_spaces": False}
        return bytes(token for token in tokens if token).decode("utf-8", errors="replace")


def test_words_keep_their_spaces_and_ends_are_no_text() -> None:
    assert pieces_of(tokenizer(), [2, 3], [5, 7, 10, 0]) == ("the cat", (" sat", " on", " .", ""))


def test_a_character_of_several_tokens_stands_where_it_is_complete() -> None:
    tokens = [*"aé€".encode(), 0, *b"b"]
    assert pieces_of(Bytes(), list(b"x"), tokens) == ("x", ("a", "", "é", "", "", "€", "", "b"))


def test_a_character_that_is_never_complete() -> None:
    assert pieces_of(Bytes(), list(b"x"), list("€".encode()[:2])) == ("x", ("", "\ufffd"))
    assert pieces_of(Bytes(), list(b"x"), [0xFF, *b"ab"]) == ("x", ("", "\ufffda", "b"))


def test_without_a_tokenizer_tokens_are_numbers() -> None:
    assert pieces_of(None, [4, 5], [6, 7]) == ("4 5", (" 6", " 7"))
