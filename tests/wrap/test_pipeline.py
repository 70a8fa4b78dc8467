"""The pipeline of an ensemble beside the library's own, on tiny networks made here."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import pluria
from pluria.pool import Temperature
from pluria.score import disagreement, member_sums, mutual_information
from pluria.wrap import EnsembleModule, ensemble_pipeline

transformers = pytest.importorskip("transformers", reason="transformers is not installed")

SMALL = {"hidden_size": 8, "intermediate_size": 12, "num_hidden_layers": 1, "num_attention_heads": 2}
WIDE = {**SMALL, "initializer_range": 1.0, "num_labels": 3}
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "good", "bad", "film", "a"]
CPU = {"device": "cpu"}


@pytest.fixture(scope="module", autouse=True)
def quiet() -> Iterator[None]:
    logging.disable(logging.WARNING)
    transformers.utils.logging.disable_progress_bar()
    yield
    transformers.utils.logging.enable_progress_bar()
    logging.disable(logging.NOTSET)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A text classifier with its tokenizer, as the library saves them."""
    place = tmp_path_factory.mktemp("text")
    (place / "vocab.txt").write_text("\n".join(WORDS))
    transformers.BertTokenizer(str(place / "vocab.txt")).save_pretrained(place)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = transformers.BertConfig(**WIDE, vocab_size=len(WORDS), max_position_embeddings=16)
        transformers.BertForSequenceClassification(config).save_pretrained(place)
    return place


@pytest.fixture(scope="module")
def text(folder: Path) -> nn.Module:
    return transformers.BertForSequenceClassification.from_pretrained(folder).eval()


@pytest.fixture(scope="module")
def picture() -> tuple[nn.Module, Any]:
    """An image classifier and its processor."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = transformers.ViTConfig(**WIDE, image_size=8, patch_size=4)
        network = transformers.ViTForImageClassification(config).eval()
    kind = getattr(transformers, "ViTImageProcessorPil", transformers.ViTImageProcessor)
    return network, kind(size={"height": 8, "width": 8})


def images(count: int) -> list[Image.Image]:
    draws = np.random.RandomState(0)
    return [Image.fromarray(draws.randint(0, 255, (9, 10, 3), dtype=np.uint8)) for _ in range(count)]


def close(found: Any, wanted: Any) -> bool:
    """The same form, the same labels, scores equal within rounding."""
    if isinstance(wanted, list):
        return isinstance(found, list) and len(found) == len(wanted) and all(map(close, found, wanted))
    same = list(found) == list(wanted) and found["label"] == wanted["label"]
    return same and found["score"] == pytest.approx(wanted["score"], abs=1e-6)


@pytest.mark.parametrize(
    ("inputs", "options"),
    [
        ("a good film", {}),
        (["a good film", "bad"], {}),
        ("a good film", {"top_k": 2}),
        (["a good film", "bad", "a a"], {"top_k": None, "batch_size": 2}),
        ({"text": "a", "text_pair": "bad film"}, {}),
        ([{"text": "a", "text_pair": "bad"}], {"top_k": 1}),
        ("a film", {"truncation": True, "max_length": 3}),
    ],
)
def test_equal_members_answer_as_the_library_does(folder: Path, text: nn.Module, inputs: Any, options: Any) -> None:
    own = transformers.pipeline("text-classification", model=str(folder), **CPU)
    ensemble = pluria.stack([pluria.params_of(text)] * 2)
    ours = ensemble_pipeline("text-classification", folder, ensemble, uncertainty=False, **CPU)
    assert close(ours(inputs, **options), own(inputs, **options))
    assert not close(ours("good"), own("bad"))
    with_more = ensemble_pipeline("sentiment-analysis", folder, ensemble, **CPU)(inputs, **options)
    answers = with_more if isinstance(with_more, list) else [with_more]
    first = answers[0] if isinstance(answers[0], dict) else answers[0][0]
    assert first["uncertainty"] == {"mutual_information": pytest.approx(0, abs=1e-9), "agreement": 1.0}


def test_images_as_the_library_answers(picture: tuple[nn.Module, Any], tmp_path: Path) -> None:
    network, processor = picture
    own = transformers.pipeline("image-classification", model=network, image_processor=processor, **CPU)
    ensemble = pluria.single(pluria.params_of(network))
    ours = ensemble_pipeline(
        "image-classification", network, ensemble, image_processor=processor, uncertainty=False, **CPU
    )
    images(1)[0].save(tmp_path / "one.png")
    for inputs in (images(1)[0], images(3), str(tmp_path / "one.png")):
        for options in ({}, {"top_k": 1, "batch_size": 2}):
            assert close(ours(inputs, **options), own(inputs, **options))


def test_scores_and_uncertainty_of_an_ensemble(folder: Path, text: nn.Module) -> None:
    ensemble = pluria.low_precision(text, format="int3", members=4).reweight(torch.tensor([0.4, 0.3, 0.2, 0.1]))
    temperature = Temperature(1.7)
    pipe = ensemble_pipeline("text-classification", folder, ensemble, pool="logit", temperature=temperature, **CPU)
    phrases, apart = ["a good film", "bad", "film film good"], 0.0
    module = EnsembleModule(text, ensemble, pool="logit", temperature=temperature)
    tokens = transformers.AutoTokenizer.from_pretrained(folder)
    for found, phrase in zip(pipe((p for p in phrases), top_k=None), phrases, strict=True):
        batch = dict(tokens(phrase, return_tensors="pt"))
        probs, sums = module(**batch)[0].exp(), member_sums(module.members(**batch), ensemble.weights)
        assert [a["score"] for a in found] == pytest.approx(sorted(probs.tolist(), reverse=True), abs=1e-6)
        by_label = {answer["label"]: answer for answer in found}
        for place, label in text.config.id2label.items():
            assert by_label[label]["score"] == pytest.approx(float(probs[place]), abs=1e-6)
            told = by_label[label]["uncertainty"]
            assert told["mutual_information"] == pytest.approx(float(mutual_information(sums)), abs=1e-6)
            assert told["agreement"] == pytest.approx(float(sums.vote_shares[0, place]), abs=1e-6)
        apart += float(disagreement(sums))
    assert apart > 0


def test_members_are_drawn_or_read(folder: Path, text: nn.Module, tmp_path: Path) -> None:
    ensemble = pluria.low_precision(text, format="int3", members=3, key=5)
    pluria.save(tmp_path / "e.pluria", ensemble)
    drawn = ensemble_pipeline("text-classification", folder, format="int3", members=3, key=5, **CPU)
    read = ensemble_pipeline("text-classification", text, tmp_path / "e.pluria", tokenizer=drawn.tokenizer, **CPU)
    assert drawn("a good film") == read("a good film")
    assert len(drawn.answer.ensemble) == 3
    logs = drawn("good", function_to_apply="none", top_k=1)[0]["score"]
    assert np.exp(logs) == pytest.approx(drawn("good", top_k=1)[0]["score"], abs=1e-6)


def test_what_is_refused(folder: Path, text: nn.Module, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="task is one of"):
        ensemble_pipeline("text-generation", folder)
    with pytest.raises(ValueError, match="Nothing is downloaded"):
        ensemble_pipeline("text-classification", "bert-base-uncased")
    with pytest.raises(pluria.CheckpointError, match="does not fit"):
        ensemble_pipeline("text-classification", folder, pluria.low_precision(nn.Linear(2, 2)), **CPU)
    with pytest.raises(ValueError, match="exclude each other"):
        ensemble_pipeline("text-classification", folder, **CPU)("good", function_to_apply="sigmoid")
    several = transformers.BertForSequenceClassification(
        transformers.BertConfig(**SMALL, vocab_size=9, problem_type="multi_label_classification")
    )
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    with pytest.raises(ValueError, match="multi_label_classification"):
        ensemble_pipeline("text-classification", several, tokenizer=tokenizer, **CPU)
