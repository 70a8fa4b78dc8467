"""Adapters that PEFT trains are members of ours, and ours are adapters of PEFT's: the same answers both ways."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from pluria.core.ensemble import Ensemble
from pluria.core.factored import Factored
from pluria.core.params import params_of
from pluria.merge import adapted, adapters_of
from pluria.predict import gather, predict
from pluria.store import read_peft, write_peft
from pluria.train import lora, train

peft = pytest.importorskip("peft", reason="peft is not installed")
transformers = pytest.importorskip("transformers", reason="transformers is not installed")
# PEFT asks transformers by a name that this one calls old.
pytestmark = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")
NAMES = ["one", "two", "three"]
WHERE = ("query", "value")


def base() -> Any:
    """A tiny transformer that tells three classes apart."""
    config = transformers.BertConfig(
        vocab_size=20, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=24, num_labels=3,
        max_position_embeddings=12, initializer_range=0.3,
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return transformers.BertForSequenceClassification(config).eval()


def batch(seed: int) -> dict[str, Tensor]:
    tokens = torch.randint(20, (8, 10), generator=torch.Generator().manual_seed(seed))
    return {"input_ids": tokens, "attention_mask": torch.ones_like(tokens)}


def classes(seed: int) -> Tensor:
    return torch.randint(3, (8,), generator=torch.Generator().manual_seed(100 + seed))


def answers(model: Any) -> Tensor:
    with torch.no_grad():
        return model(**batch(0)).logits  # type: ignore[no-any-return]


def outputs(ensemble: Ensemble) -> Tensor:
    return gather(predict(base(), ensemble, [batch(0)]))[0]


def trained_by_peft(folder: Path) -> Any:
    """PEFT's model with an adapter for each name, each trained on a batch of its own, and saved."""
    options = {"r": 2, "lora_alpha": 4, "target_modules": list(WHERE)}
    model = peft.get_peft_model(base(), peft.LoraConfig(**options), NAMES[0])
    for number, name in enumerate(NAMES):
        if number:
            model.add_adapter(name, peft.LoraConfig(**options))
        model.set_adapter(name)
        optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], 0.05)
        for _ in range(3):
            optimizer.zero_grad()
            torch.autograd.backward(F.cross_entropy(model(**batch(number)).logits, classes(number)))
            optimizer.step()
    model.save_pretrained(folder)
    return model


def test_what_peft_trained_answers_as_in_peft(tmp_path: Path) -> None:
    model = trained_by_peft(tmp_path)
    ensemble = adapted(params_of(base()), [read_peft(tmp_path / name) for name in NAMES])
    found, plain = outputs(ensemble), answers(base())
    for number, name in enumerate(NAMES):
        model.set_adapter(name)
        torch.testing.assert_close(found[number], answers(model), rtol=1e-5, atol=1e-5)
        assert float((found[number] - plain).abs().max()) > 1e-2
    factored = [name for name, family in ensemble.families.items() if isinstance(family, Factored)]
    assert len(factored) == 4
    assert not torch.allclose(found[0], found[1], atol=1e-3)


def test_what_we_trained_answers_as_in_peft(tmp_path: Path) -> None:
    population = lora(base(), members=3, rank=2, gain=1.0, where=tuple(f"{name}.weight" for name in WHERE))
    optimizer = torch.optim.Adam([p for p in population.parameters() if p.requires_grad], 0.05)

    def each(population: Any, number: int) -> Tensor:
        logits = [population(batch(number + k), member=k).logits for k in range(3)]
        return torch.stack([F.cross_entropy(each, classes(number + k)) for k, each in enumerate(logits)]).sum()

    train(population, lambda epoch: [0, 3, 6], each, optimizer=optimizer, epochs=2)
    ensemble = population.eval().ensemble()
    found = outputs(ensemble)
    for number, (name, adapter) in enumerate(zip(NAMES, adapters_of(ensemble), strict=True)):
        write_peft(adapter, tmp_path / name)
        model = peft.PeftModel.from_pretrained(base(), tmp_path / name).eval()
        torch.testing.assert_close(answers(model), found[number], rtol=1e-5, atol=1e-5)
    assert float((found - answers(base())).abs().max()) > 1e-2


def test_adapters_of_undoes_adapted_and_names_what_is_none() -> None:
    population = lora(base(), members=2, rank=2, own=("classifier.bias",))
    assert len(adapters_of(population.ensemble())) == 2
    with torch.no_grad():
        population.parts["classifier/bias"].values[1] += 1
    with pytest.raises(ValueError, match=r"members differ in 'classifier.bias' by more than a product"):
        adapters_of(population.ensemble())
