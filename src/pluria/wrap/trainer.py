"""Collectors in a transformers `Trainer`: a callback that looks after every optimiser step, saved with checkpoints.

callback = TrainerCollectors(swag=SWAG(...));  Trainer(..., callbacks=[callback]).train();  callback.ensemble("swag")
"""

from __future__ import annotations

import inspect
import os
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import TrainerCallback

from pluria.core.ensemble import Ensemble
from pluria.train import Collector, State

FILE = "pluria_collectors.pt"


class TrainerCollectors(TrainerCallback):
    """Folds a Trainer's run into the states of named collectors; they go on where a checkpoint is resumed from.

    The checkpoint is that of `Trainer.train(resume_from_checkpoint=...)`; in a loop that has no such argument, that of
    `TrainingArguments(resume_from_checkpoint=...)`, or of that step in `output_dir`.
    """

    def __init__(self, **collectors: Collector) -> None:
        self.collectors, self.states = collectors, dict[str, State]()

    def on_train_begin(self, args: Any, state: Any, control: Any, model: nn.Module | None = None, **_: Any) -> None:
        """Start, or go on from the checkpoint of the step that the Trainer stands at."""
        if model is None:
            raise ValueError("the Trainer gave no model to its callbacks, so there is nothing to collect")
        self.states = {name: collector.start(model) for name, collector in self.collectors.items()}
        if state.global_step:
            own = Path(args.output_dir) / f"checkpoint-{state.global_step}"
            self.states = self._read(Path(_resumed_from(self) or args.resume_from_checkpoint or own) / FILE)

    def on_step_end(self, args: Any, state: Any, control: Any, model: nn.Module | None = None, **_: Any) -> None:
        """Look at the network after an optimiser step."""
        assert model is not None
        for name, collector in self.collectors.items():
            self.states[name] = collector.update(self.states[name], model, state.global_step)

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Put the states beside the Trainer's own, in the folder of the checkpoint."""
        folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
        if state.is_world_process_zero and folder.is_dir():
            torch.save({name: each.state_dict() for name, each in self.states.items()}, folder / FILE)

    def ensemble(self, name: str, **options: Any) -> Ensemble:
        """What one of the collectors has; `options` are those of its `ensemble`."""
        return self.collectors[name].ensemble(self.states[name], **options)

    def _read(self, file: Path) -> dict[str, State]:
        if not file.is_file():
            raise ValueError(
                f"{file} is missing: the resumed run had no such callback, or its checkpoint lies elsewhere. Name its "
                "folder in Trainer.train(resume_from_checkpoint=...), start anew, or leave the callback out"
            )
        saved = torch.load(file, weights_only=True)
        if set(saved) != set(self.collectors):
            raise ValueError(f"{file} has the collectors {sorted(saved)}, here are {sorted(self.collectors)}")
        return {name: State.from_state_dict(each) for name, each in saved.items()}


def _resumed_from(callback: TrainerCallback) -> str | None:
    """The folder its Trainer resumes from. A callback is told all but that, so those who called it are looked at."""
    frame = inspect.currentframe()
    while frame is not None:
        handler = getattr(frame.f_locals.get("self"), "callback_handler", None)
        if callback in getattr(handler, "callbacks", ()):
            folder = frame.f_locals.get("resume_from_checkpoint")
            if isinstance(folder, str | os.PathLike):
                return os.fspath(folder)
        frame = frame.f_back
    return None
