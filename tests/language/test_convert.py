"""The converted language model against a plain reference of its own format."""

from __future__ import annotations

import importlib.util
import itertools
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

import pluria
from pluria.language import tokenizer_in, tokens_of

pytest.importorskip("transformers", reason="transformers is not installed")

SCRIPT = Path(__file__).resolve().parents[2] / "experiments" / "language" / "convert.py"
TEXTS = [
    "Once upon a time, there was a little girl named Lily.",
    "First Citizen:\nBefore we proceed any further, hear me speak.\n\nAll:\nSpeak, speak.",
    "  two spaces, caf\u00e9 \u2192 \U0001f600!",
    "x",
]


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("language_convert", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules["language_convert"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def folder(script: ModuleType, real_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("stories")
    script.convert(real_data / "stories260k", out)
    return out


def normed(x: NDArray[Any], scale: NDArray[Any]) -> NDArray[Any]:
    wanted: NDArray[Any] = x / np.sqrt((x * x).mean(-1, keepdims=True) + 1e-5) * scale
    return wanted


def turned(x: NDArray[Any], cosines: NDArray[Any], sines: NDArray[Any]) -> NDArray[Any]:
    """Neighbours 2i, 2i + 1 of `[T, heads, part]` turned by the angle of their place."""
    even, odd = x[..., 0::2], x[..., 1::2]
    c, s = cosines[: len(x), None], sines[: len(x), None]
    return np.stack([even * c - odd * s, even * s + odd * c], axis=-1).reshape(x.shape)


def reference(found: Any, tokens: NDArray[Any]) -> NDArray[Any]:
    """Logits `[T, V]` straight from the format's arrays, in float64."""
    s, a = found.sizes, {name: value.astype(np.float64) for name, value in found.arrays.items()}
    part, count = s["width"] // s["heads"], len(tokens)
    x = a["embedding"][tokens]
    for i in range(s["layers"]):
        h = normed(x, a["attention_norm"][i])
        query, key, value = ((h @ a[name][i].T).reshape(count, -1, part) for name in ("query", "key", "value"))
        query, key = turned(query, a["cosines"], a["sines"]), turned(key, a["cosines"], a["sines"])
        answers = []
        for head in range(s["heads"]):
            shared = head // (s["heads"] // s["key_values"])
            scores = query[:, head] @ key[:, shared].T / np.sqrt(part)
            scores[np.triu_indices(count, 1)] = -np.inf
            weights = np.exp(scores - scores.max(-1, keepdims=True))
            answers.append(weights / weights.sum(-1, keepdims=True) @ value[:, shared])
        x = x + np.concatenate(answers, axis=-1) @ a["output"][i].T
        h = normed(x, a["mlp_norm"][i])
        gate = h @ a["gate"][i].T
        x = x + (gate / (1 + np.exp(-gate)) * (h @ a["up"][i].T)) @ a["down"][i].T
    wanted: NDArray[Any] = normed(x, a["norm"]) @ a["embedding"].T
    return wanted


def encoded(tokens: list[bytes], scores: list[float], text: str) -> list[int]:
    """The format's own encoder, the slow way: the pair whose union scores best is merged until there is none."""
    known = {token: i for i, token in enumerate(tokens)}
    found = [1]
    for letter in " " + text:
        raw = letter.encode()
        found += [known[raw]] if raw in known else [byte + 3 for byte in raw]
    while True:
        pairs = [known.get(tokens[a] + tokens[b], -1) for a, b in itertools.pairwise(found)]
        best = max(range(len(pairs)), key=lambda i: scores[pairs[i]] if pairs[i] >= 0 else -np.inf, default=0)
        if not pairs or pairs[best] < 0:
            return found
        found[best : best + 2] = [pairs[best]]


def test_logits_are_those_of_the_format(script: ModuleType, folder: Path, real_data: Path) -> None:
    model = pluria.load(folder)
    tokens = tokens_of(tokenizer_in(folder, model=model), " ".join(TEXTS[:2]))
    with torch.no_grad():
        found = model(input_ids=tokens[None]).logits[0].double().numpy()
    wanted = reference(script.read(real_data / "stories260k" / "stories260K.bin"), tokens.numpy())
    np.testing.assert_allclose(found, wanted, atol=2e-4)
    wrong = wanted.copy()
    wrong[-1, 0] += 0.01
    with pytest.raises(AssertionError):
        np.testing.assert_allclose(found, wrong, atol=2e-4)


def test_tokens_are_those_of_the_format(script: ModuleType, folder: Path, real_data: Path) -> None:
    tokens, scores = script.read_tokens(real_data / "stories260k" / "tok512.bin", 512)
    made = tokenizer_in(folder)
    shakespeare = (real_data / "text" / "tinyshakespeare.txt").read_text()
    for text in [*TEXTS, *(shakespeare[at : at + 300] for at in (1000, 200_000, 800_000))]:
        found = tokens_of(made, text).tolist()
        assert found == encoded(tokens, scores, text)
        assert made.decode(found[1:]) == text


def test_a_file_of_another_length_is_refused(script: ModuleType, real_data: Path, tmp_path: Path) -> None:
    raw = (real_data / "stories260k" / "stories260K.bin").read_bytes()
    (tmp_path / "short.bin").write_bytes(raw[:-4])
    with pytest.raises(ValueError, match="264128 numbers are expected after the sizes"):
        script.read(tmp_path / "short.bin")


def test_the_model_tells_stories(folder: Path) -> None:
    model = pluria.load(folder)
    made = tokenizer_in(folder)
    start = tokens_of(made, "Once upon a time, there was a")
    with torch.no_grad():
        told = model.generate(start[None], max_new_tokens=20, do_sample=False, pad_token_id=0)
    assert made.decode(told[0][1:]).startswith("Once upon a time, there was a little")
