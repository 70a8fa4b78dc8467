"""The text of tokens, token by token, so that each word can be shown with what is known of it.

    pieces[t] = text of (prompt, tokens 0..t) after the text of (prompt, tokens 0..t-1)

A token that ends inside a character has an empty piece; the character stands with the token that completes it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

BROKEN = "\ufffd"
"""What stands in a text for a character that is not complete."""


def pieces_of(tokenizer: Any, prompt: Sequence[int], tokens: Sequence[int]) -> tuple[str, tuple[str, ...]]:
    """The prompt's text, and the piece that each token adds to it; numbers of tokens where there is no tokenizer.

    Tokens that mark the end, padding and the like are no text. The joined pieces are the text, whatever is held back.
    """
    if tokenizer is None:
        return " ".join(map(str, prompt)), tuple(f" {token}" for token in tokens)

    def text(part: Sequence[int]) -> str:
        # Without the clean-up, which would take back spaces that were shown already.
        return str(tokenizer.decode(list(part), skip_special_tokens=True, clean_up_tokenization_spaces=False))

    shown = start = text(prompt)
    found = []
    for count in range(1, len(tokens) + 1):
        now = text([*prompt, *tokens[:count]])
        held = not now.startswith(shown) or (now.endswith(BROKEN) and count < len(tokens))
        found.append("" if held else now[len(shown) :])
        shown = shown if held else now
    return start, tuple(found)
