"""Networks from folders as transformers saves them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from pluria.core.errors import CheckpointError, PluriaError, RecipeError
from pluria.recipe.resolve import load_network
from pluria.recipe.schema import Network


def refusal(kind: type[PluriaError], spec: Network) -> str:
    with pytest.raises(kind) as caught:
        load_network(spec)
    return str(caught.value)


@pytest.fixture(scope="module")
def hugging_face(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tiny vision transformer of random weights, as transformers saves it."""
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    folder = tmp_path_factory.mktemp("vit")
    config = transformers.ViTConfig(
        hidden_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=8,
        image_size=4,
        patch_size=2,
        num_channels=1,
        num_labels=3,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        transformers.ViTForImageClassification(config).save_pretrained(folder)
    return folder


def test_a_hugging_face_folder(hugging_face: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    model, _ = load_network(Network(model=str(hugging_face)))
    assert capsys.readouterr() == ("", ""), "no bars of other libraries"
    assert not model.training
    assert model(torch.zeros(2, 1, 4, 4)).logits.shape == (2, 3)
    saved = load_file(hugging_face / "model.safetensors")
    assert torch.equal(model.state_dict()["classifier.weight"], saved["classifier.weight"])


def copied(folder: Path, to: Path, **config: Any) -> Path:
    to.mkdir()
    for file in folder.iterdir():
        (to / file.name).write_bytes(file.read_bytes())
    held = json.loads((to / "config.json").read_text())
    (to / "config.json").write_text(json.dumps({**held, **config}))
    return to


def test_hugging_face_folders_that_do_not_serve(hugging_face: Path, tmp_path: Path) -> None:
    odd = copied(hugging_face, tmp_path / "odd", architectures=["NoSuchModel"])
    assert "has no architecture 'NoSuchModel'" in refusal(RecipeError, Network(model=str(odd)))
    gptq = copied(hugging_face, tmp_path / "gptq", quantization_config={"quant_method": "gptq"})
    assert "is quantised already (config.json names the method 'gptq')" in refusal(
        CheckpointError, Network(model=str(gptq))
    )
    text = copied(hugging_face, tmp_path / "text")
    (text / "config.json").write_text("{")
    assert "config.json is not JSON" in refusal(CheckpointError, Network(model=str(text)))
    (text / "config.json").write_text("[]")
    assert "config.json holds no mapping" in refusal(CheckpointError, Network(model=str(text)))
    bare = copied(hugging_face, tmp_path / "bare")
    (bare / "model.safetensors").unlink()
    assert str(bare) in refusal(CheckpointError, Network(model=str(bare)))


def test_a_hugging_face_folder_without_all_weights_is_not_filled_up_at_random(
    hugging_face: Path, tmp_path: Path
) -> None:
    part = copied(hugging_face, tmp_path / "part")
    held = load_file(part / "model.safetensors")
    save_file(
        {n: v for n, v in held.items() if "classifier" not in n}, part / "model.safetensors", metadata={"format": "pt"}
    )
    said = refusal(CheckpointError, Network(model=str(part)))
    assert "the checkpoint lacks classifier.bias, classifier.weight" in said
