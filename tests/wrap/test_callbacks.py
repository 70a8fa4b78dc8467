"""Collectors in other people's training loops see every optimiser step, and go on from their checkpoints."""

from __future__ import annotations

import shutil
import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from pluria.core.ensemble import Ensemble
from pluria.train import SWAG, Snapshots, every

# Both libraries warn about themselves and about the machine.
pytestmark = pytest.mark.filterwarnings("ignore")


def data() -> TensorDataset:
    generator = torch.Generator().manual_seed(0)
    return TensorDataset(torch.randn(32, 4, generator=generator), torch.randint(3, (32,), generator=generator))


def collectors() -> dict[str, Any]:
    return {"swag": SWAG(rank=2), "points": Snapshots(every(4))}


def equal(one: Ensemble, other: Ensemble) -> bool:
    return len(one) == len(other) and all(torch.equal(a[n], b[n]) for a, b in zip(one, other, strict=True) for n in a)


class Net(nn.Module):
    """A network as a transformers Trainer calls it."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.head = nn.Linear(4, 3)

    def forward(self, x: Tensor, labels: Tensor) -> dict[str, Tensor]:
        logits = self.head(x)
        return {"loss": F.cross_entropy(logits, labels), "logits": logits}


def huggingface(folder: Path, steps: int, resume: Path | bool | None = None, **options: Any) -> Any:
    transformers = pytest.importorskip("transformers", reason="transformers is an extra")
    pytest.importorskip("accelerate", reason="the transformers Trainer needs accelerate")
    from pluria.wrap import TrainerCollectors

    callback = TrainerCollectors(**collectors())
    rows = [{"x": x, "labels": y} for x, y in zip(*data().tensors, strict=True)]
    args = transformers.TrainingArguments(
        str(folder), per_device_train_batch_size=4, gradient_accumulation_steps=2, max_steps=steps, save_steps=4,
        lr_scheduler_type="constant", report_to=[], use_cpu=True, disable_tqdm=True, seed=3,
        **{"learning_rate": 0.1, **options},
    )  # fmt: skip
    trainer = transformers.Trainer(Net(), args, train_dataset=rows, callbacks=[callback])
    trainer.train(resume_from_checkpoint=str(resume) if isinstance(resume, Path) else resume)
    return callback


def test_a_transformers_trainer(tmp_path: Path) -> None:
    whole = huggingface(tmp_path / "a", 8)
    assert whole.states["swag"].count == 8
    assert len(whole.ensemble("points")) == 2
    assert set(whole.ensemble("points").families) == {"head.weight", "head.bias"}
    huggingface(tmp_path / "b", 4)
    last = tmp_path / "b" / "checkpoint-4"
    elsewhere = shutil.copytree(last, tmp_path / "kept")
    # A checkpoint of the same step in the folder of the run that goes on, of another run: it is not the one asked for.
    huggingface(tmp_path / "d", 4, learning_rate=0.3)
    for resumed in (
        huggingface(tmp_path / "b", 8, resume=True),
        huggingface(tmp_path / "c", 8, resume=elsewhere),
        huggingface(tmp_path / "d", 8, resume=elsewhere),
        huggingface(tmp_path / "e", 8, resume=elsewhere, resume_from_checkpoint="nowhere"),
    ):
        assert equal(resumed.ensemble("points"), whole.ensemble("points"))
        assert equal(resumed.ensemble("swag", members=3), whole.ensemble("swag", members=3))
    (tmp_path / "b" / "checkpoint-4" / "pluria_collectors.pt").unlink()
    with pytest.raises(ValueError, match=r"pluria_collectors.pt is missing"):
        huggingface(tmp_path / "b", 8, resume=last)


def lightning(folder: Path, steps: int, checkpoint: Path | None = None) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pl = pytest.importorskip("lightning.pytorch", reason="lightning is an extra")
    from pluria.wrap import LightningCollectors

    class Module(pl.LightningModule):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.head = nn.Linear(4, 3)

        def training_step(self, batch: tuple[Tensor, Tensor]) -> Tensor:
            return F.cross_entropy(self.head(batch[0]), batch[1])

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.SGD(self.parameters(), 0.1)

    callback = LightningCollectors(**collectors())
    trainer = pl.Trainer(
        default_root_dir=folder, max_epochs=steps // 4, accumulate_grad_batches=2, callbacks=[callback], logger=False,
        accelerator="cpu", enable_progress_bar=False, enable_model_summary=False, enable_checkpointing=False,
    )  # fmt: skip
    trainer.fit(Module(), DataLoader(data(), batch_size=4), ckpt_path=checkpoint, weights_only=False)
    trainer.save_checkpoint(folder / "last.ckpt")
    return callback


def test_a_lightning_trainer(tmp_path: Path) -> None:
    whole = lightning(tmp_path, 8)
    assert whole.states["swag"].count == 8
    assert len(whole.ensemble("points")) == 2
    lightning(tmp_path, 4)
    resumed = lightning(tmp_path, 8, tmp_path / "last.ckpt")
    assert equal(resumed.ensemble("points"), whole.ensemble("points"))
    assert equal(resumed.ensemble("swag", members=3), whole.ensemble("swag", members=3))


def test_a_second_run_with_the_same_callback_begins_anew() -> None:
    pytest.importorskip("lightning.pytorch", reason="lightning is an extra")
    from pluria.wrap import LightningCollectors

    callback, counts = LightningCollectors(**collectors()), []
    for _ in range(2):
        trainer, model = SimpleNamespace(global_step=0), nn.Linear(2, 2)
        callback.on_train_start(trainer, model)
        for trainer.global_step in (1, 2, 3):
            callback.on_train_batch_end(trainer, model, None, None, 0)
        counts.append(callback.states["swag"].count)
    assert counts == [3, 3]
