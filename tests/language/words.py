"""A tokenizer of a few words, and folders with it and a tiny random network."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from store.tiny import saved, tiny

WORDS = ["<s>", "<unk>", "the", "cat", "dog", "sat", "ran", "on", "a", "mat", "."]
TEXT = "the cat sat on the mat . a dog ran on the mat . the dog sat ."


def tokenizer(extra: int = 0) -> Any:
    """One token for each of eleven words and of `extra` more."""
    import transformers
    from tokenizers import Tokenizer, models, pre_tokenizers

    names = [*WORDS, *(f"w{i}" for i in range(extra))]
    made = Tokenizer(models.WordLevel({word: i for i, word in enumerate(names)}, unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return transformers.PreTrainedTokenizerFast(tokenizer_object=made, unk_token="<unk>", bos_token="<s>")


def language_folder(folder: Path, kind: str = "llama", *, extra: int = 0, **options: Any) -> Path:
    """A folder with a tiny random network of eleven words and its tokenizer."""
    saved(tiny(kind, words=len(WORDS), **options), folder)
    tokenizer(extra).save_pretrained(folder)
    return folder
