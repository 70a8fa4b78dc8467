"""What a recipe names: networks with their training and members, and rows."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field


class Strict(BaseModel):
    """Frozen, and unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Training(Strict):
    """How the network is trained where there is no checkpoint: a small network, in seconds."""

    epochs: int = Field(ge=1)
    batch: int = Field(64, ge=1)
    rate: float = Field(0.003, gt=0)
    seed: int = 0


class Members(BaseModel):
    """A training that leaves members of the network, by a method whose options are the keys this class does not name.

    `cycles` cosines over the run, 0 for a constant rate. Averages and draws look at what lies behind `begin` of the
    run, samples of the posterior at what lies there in each cycle: each `every` steps, or each epoch.
    """

    model_config = ConfigDict(extra="allow", frozen=True)

    method: str
    epochs: int = Field(ge=1)
    batch: int = Field(64, ge=1)
    rate: float = Field(0.1, gt=0)
    optimiser: Literal["sgd", "adam"] = "sgd"
    weight_decay: float = Field(0.0, ge=0)
    cycles: int = Field(1, ge=0)
    begin: float = Field(0.75, ge=0, lt=1)
    every: int | None = Field(None, ge=1)
    accumulate: int = Field(1, ge=1)
    autocast: bool = False
    seed: int = 0

    @property
    def options(self) -> dict[str, Any]:
        """The method's own options; lists are tuples, as methods take them."""
        given = self.model_extra or {}
        return {name: tuple(value) if isinstance(value, list) else value for name, value in given.items()}


class Network(Strict):
    """`model` is a zoo name, an import path `package.module:Class` (which runs that code) or a Hugging Face folder.

    `members` are what it brings along besides itself: a `.pluria` file, or a training that leaves them.
    """

    model: str
    arguments: dict[str, Any] = {}
    checkpoint: str | None = None
    train: Training | None = None
    members: str | Members | None = None

    @property
    def trains(self) -> bool:
        """Whether there are rows needed to train it, or members of it."""
        return self.train is not None or isinstance(self.members, Members)


class Data(Strict):
    """`reader` is a reader's name or an import path to a function that returns a Dataset."""

    reader: str
    arguments: dict[str, Any] = {}
    rows: int | None = Field(None, ge=2)
