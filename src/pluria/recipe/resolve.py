"""From the words of a recipe to a network with its checkpoint, and to rows of data."""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from pluria.core.errors import CheckpointError, DataError, PluriaError, RecipeError
from pluria.core.params import check_finite, check_fit
from pluria.recipe.parts import Data, Network, Training
from pluria.recipe.plain import nearest_name
from pluria.recipe.schema import Recipe
from pluria.store.checkpoint import read_checkpoint
from pluria.store.pretrained import network_in
from pluria.zoo.dataset import IGNORED, Dataset
from pluria.zoo.fit import fit
from pluria.zoo.networks import NETWORKS, network
from pluria.zoo.readers import READERS, read
from pluria.zoo.shifts import shifted


@dataclass(frozen=True)
class Rows:
    """What calibrates and chooses, what gives the figures, and what lies beyond: changed and foreign rows."""

    calibration: Dataset
    figures: Dataset
    shifted: Mapping[str, Dataset] = field(default_factory=dict)
    outside: Mapping[str, Dataset] = field(default_factory=dict)

    def parts(self, beyond: bool) -> dict[str, Dataset]:
        """Every part by the name of its folder, with or without those beyond."""
        more = {f"shifted-{name}": rows for name, rows in self.shifted.items()}
        more |= {f"outside-{name}": rows for name, rows in self.outside.items()}
        return {"calibration": self.calibration, "figures": self.figures, **(more if beyond else {})}


def data_rows(recipe: Recipe) -> Rows:
    """The rows of a recipe; DataError where a part would be empty."""
    found = dataset(recipe.data)
    parts = found.split_half() if recipe.calibration == "half" else (dataset(recipe.calibration), found)
    some = parts[1].take(slice(0, recipe.shifted_rows))
    shifts = {name: _shifted(name, some, changes) for name, changes in recipe.shifted.items()}
    rows = Rows(*parts, shifts, {name: dataset(data) for name, data in recipe.outside.items()})
    for part in (rows.calibration, rows.figures):
        if not bool((part.targets != IGNORED).any()):
            raise DataError(f"{part.name}: every target is {IGNORED} (ignored), so there is nothing to score")
    return rows


def _shifted(name: str, rows: Dataset, changes: Mapping[str, float]) -> Dataset:
    try:
        return shifted(rows, changes)
    except (ValueError, TypeError, ImportError) as error:
        raise DataError(f"shifted.{name}: {error}") from None


def built(spec: Network, *, trust: bool = False) -> nn.Module:
    """The network without its checkpoint, in evaluation mode; a Hugging Face folder has its own.

    An import path runs the code it names; code that comes with a folder is run where `trust` says so.
    """
    if spec.model in NETWORKS:
        return _call(lambda **a: network(spec.model, **a), spec)
    if ":" in spec.model:
        return _call(imported(spec.model), spec)
    if Path(spec.model, "config.json").is_file():
        return network_in(Path(spec.model), trust=trust)
    names = nearest_name(spec.model, sorted(NETWORKS))
    raise RecipeError(
        f"no network {spec.model!r}: neither a zoo name, an import path 'package.module:Class', nor a folder with a "
        f"config.json{names}"
    )


def load_network(spec: Network, *, trust: bool = False) -> tuple[nn.Module, list[str]]:
    """The network with its checkpoint, and notes on what was read; one that is to be trained is as it was built.

    trust   run the code that comes with a Hugging Face folder
    """
    model = built(spec, trust=trust)
    if spec.checkpoint is None:
        if spec.train is None and spec.members is None and not Path(spec.model, "config.json").is_file():
            raise RecipeError("the network has no checkpoint: give the trained file (or, in a recipe, network.train)")
        return model, []
    found = read_checkpoint(spec.checkpoint)
    check_fit(found.params, model.state_dict(), what=spec.checkpoint)
    model.load_state_dict(dict(found.params))
    check_finite(model.state_dict(), what=spec.checkpoint)
    return model, list(found.notes)


def trained(model: nn.Module, how: Training, rows: Dataset, progress: Callable[[int, float], None]) -> nn.Module:
    """The network trained on rows; RecipeError where training diverged."""
    steps = {"epochs": how.epochs, "batch": how.batch, "rate": how.rate, "seed": how.seed}
    model = fit(model, rows, progress=progress, **steps)  # type: ignore[arg-type]
    try:
        check_finite(model.state_dict())
    except CheckpointError:
        raise RecipeError(f"training diverged at rate {how.rate}: give a smaller network.train.rate") from None
    return model


def training_rows(recipe: Recipe) -> Dataset | None:
    """The rows a recipe trains on, if it trains."""
    return None if recipe.training is None else dataset(recipe.training)


def imported(path: str) -> Callable[..., Any]:
    """What an import path `package.module:name` names; the current folder is looked in too. Runs that module's code."""
    module, _, name = path.partition(":")
    if not all(part.isidentifier() for part in module.split(".")):
        raise RecipeError(f"{path!r} is no import path; wanted package.module:name")
    if (here := str(Path.cwd())) not in sys.path:
        sys.path.insert(0, here)
    try:
        found = importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise RecipeError(
            f"cannot import {path!r}: {error}. Run from the folder that holds it, or install it"
        ) from None
    except Exception as error:
        raise RecipeError(f"cannot import {path!r}: {module} fails with {type(error).__name__}: {error}") from error
    if not callable(getattr(found, name, None)):
        there = [n for n, value in vars(found).items() if callable(value) and not n.startswith("_")]
        raise RecipeError(f"module {module!r} has no {name!r} to call{nearest_name(name, there)}")
    return getattr(found, name)  # type: ignore[no-any-return]


def device_of(name: str) -> torch.device:
    """The device a recipe names; "auto" is the accelerator where there is one."""
    if name == "auto":
        return (
            torch.accelerator.current_accelerator() or torch.device("cpu")
            if torch.accelerator.is_available()
            else torch.device("cpu")
        )
    try:
        device = torch.device(name)
    except RuntimeError:
        raise RecipeError(f"unknown device {name!r}; use auto, cpu, cuda or cuda:1") from None
    try:
        torch.empty(1, device=device).cpu()
    except (RuntimeError, AssertionError) as error:  # which one depends on how torch was built
        line = str(error).splitlines()[0].rstrip(".")
        raise RecipeError(f"device {name!r} cannot be used here ({line}); use auto or cpu") from None
    return device


def _call(builder: Callable[..., Any], spec: Network) -> nn.Module:
    try:
        inspect.signature(builder).bind(**spec.arguments)
        model = builder(**spec.arguments)
    except Exception as error:  # the user's own code, which may raise anything
        raise RecipeError(f"network {spec.model!r} with arguments {spec.arguments}: {error}") from None
    if not isinstance(model, nn.Module):
        raise RecipeError(f"{spec.model!r} gives {type(model).__name__}, not a torch.nn.Module")
    return model.eval()


def dataset(spec: Data) -> Dataset:
    """Rows by a reader of the zoo or of the user's own, which is an import path and runs the code it names.

    Raises RecipeError for a reader that does not exist, DataError for arguments or data that do not fit.
    """
    if spec.reader not in READERS and ":" not in spec.reader:
        raise RecipeError(f"no reader {spec.reader!r}{nearest_name(spec.reader, sorted(READERS))}")
    own = spec.reader not in READERS
    try:
        found = imported(spec.reader)(**spec.arguments) if own else read(spec.reader, **spec.arguments)
    except (PluriaError, OSError):
        raise
    except Exception as error:  # the user's own code, which may raise anything
        raise DataError(f"reader {spec.reader!r}: {error}" if own else str(error)) from None
    if not isinstance(found, Dataset):
        raise RecipeError(f"reader {spec.reader!r} gives {type(found).__name__}, not a pluria Dataset")
    return found if spec.rows is None else found.take(slice(0, spec.rows))
