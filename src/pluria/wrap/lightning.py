"""Collectors in a Lightning `Trainer`: a callback that looks after every optimiser step and is part of checkpoints.

callback = LightningCollectors(swag=SWAG(...));  Trainer(callbacks=[callback]).fit(module);  callback.ensemble("swag")
"""

from __future__ import annotations

from typing import Any

from lightning.pytorch import Callback

from pluria.core.ensemble import Ensemble
from pluria.train import Collector, State


class LightningCollectors(Callback):
    """Folds a Trainer's run into the states of named collectors; they are saved and loaded with the Trainer's own."""

    def __init__(self, **collectors: Collector) -> None:
        self.collectors, self.states, self.step = collectors, dict[str, State](), 0

    def on_train_start(self, trainer: Any, module: Any) -> None:
        """Start, unless the Trainer goes on: from a checkpoint, or with a second `fit` of its own."""
        if not self.states or not trainer.global_step:
            self.states = {name: collector.start(module) for name, collector in self.collectors.items()}
        self.step = trainer.global_step

    def on_train_batch_end(self, trainer: Any, module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Look at the network where the batch ended in an optimiser step: accumulated ones do not."""
        if trainer.global_step > self.step:
            self.step = trainer.global_step
            for name, collector in self.collectors.items():
                self.states[name] = collector.update(self.states[name], module, self.step)

    def state_dict(self) -> dict[str, Any]:
        """For the Trainer's checkpoint."""
        return {name: state.state_dict() for name, state in self.states.items()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """From the Trainer's checkpoint. Raises ValueError for other collectors."""
        if set(state_dict) != set(self.collectors):
            raise ValueError(
                f"the checkpoint has the collectors {sorted(state_dict)}, here are {sorted(self.collectors)}"
            )
        self.states = {name: State.from_state_dict(each) for name, each in state_dict.items()}

    def ensemble(self, name: str, **options: Any) -> Ensemble:
        """What one of the collectors has; `options` are those of its `ensemble`."""
        return self.collectors[name].ensemble(self.states[name], **options)
