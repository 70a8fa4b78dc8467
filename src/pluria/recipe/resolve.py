"""From the words of a recipe to a network with its checkpoint, and to rows of data."""

from __future__ import annotations

import importlib
import inspect
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from pluria.core.errors import CheckpointError, DataError, RecipeError
from pluria.core.params import check_finite, check_fit
from pluria.recipe.schema import Data, Network, Recipe, nearest_name
from pluria.store.checkpoint import read_checkpoint
from pluria.zoo.dataset import Dataset
from pluria.zoo.fit import fit
from pluria.zoo.networks import NETWORKS, network
from pluria.zoo.readers import READERS, read


@dataclass(frozen=True)
class Rows:
    """What calibrates and chooses, and what gives the figures."""

    calibration: Dataset
    figures: Dataset


def data_rows(recipe: Recipe) -> Rows:
    """The rows of a recipe; DataError where a part would be empty."""
    try:
        found = dataset(recipe.data)
        if recipe.calibration == "half":
            return Rows(*found.split_half())
        return Rows(dataset(recipe.calibration), found)
    except (ValueError, TypeError) as error:
        raise DataError(str(error)) from None


def built(spec: Network) -> nn.Module:
    """The network without its checkpoint, in evaluation mode. An import path runs the code it names."""
    if spec.model in NETWORKS:
        return _call(lambda **a: network(spec.model, **a), spec)
    if ":" in spec.model:
        return _call(imported(spec.model), spec)
    if Path(spec.model, "config.json").is_file():
        return _hugging_face(Path(spec.model))
    names = nearest_name(spec.model, sorted(NETWORKS))
    raise RecipeError(
        f"no network {spec.model!r}: neither a zoo name, an import path 'package.module:Class', nor a folder with a "
        f"config.json{names}"
    )


def load_network(
    spec: Network, training: Dataset | None = None, progress: Callable[[int, float], None] | None = None
) -> tuple[nn.Module, list[str]]:
    """The network with its checkpoint, or trained where the recipe says so, and notes on what was read."""
    model, notes = built(spec), []
    if spec.checkpoint is not None:
        found = read_checkpoint(spec.checkpoint)
        check_fit(found.params, model.state_dict(), what=spec.checkpoint)
        model.load_state_dict(dict(found.params))
        notes = list(found.notes)
    elif spec.train is not None:
        if training is None:
            raise RecipeError("network.train needs rows to train on: give `training`, data as under `data`")
        model = fit(model, training, epochs=spec.train.epochs, batch=spec.train.batch, rate=spec.train.rate,
                    seed=spec.train.seed, progress=progress)  # fmt: skip
    elif not Path(spec.model, "config.json").is_file():
        raise RecipeError("the network has neither a checkpoint nor `train`: give network.checkpoint, the trained file")
    check_finite(model.state_dict(), what=spec.checkpoint or "the network")
    return model.eval(), notes


def training_rows(recipe: Recipe) -> Dataset | None:
    """The rows a recipe trains on, if it trains."""
    return None if recipe.training is None else dataset(recipe.training)


def imported(path: str) -> Callable[..., Any]:
    """What an import path `package.module:name` names; the current folder is looked in too. Runs that module's code."""
    module, _, name = path.partition(":")
    if (here := str(Path.cwd())) not in sys.path:
        sys.path.insert(0, here)
    try:
        return getattr(importlib.import_module(module), name)  # type: ignore[no-any-return]
    except ModuleNotFoundError as error:
        raise RecipeError(
            f"cannot import {path!r}: {error}. Run from the folder that holds it, or install it"
        ) from None
    except AttributeError:
        raise RecipeError(f"module {module!r} has no {name!r}") from None


def device_of(name: str) -> torch.device:
    """The device a recipe names; "auto" is the accelerator where there is one."""
    if name == "auto":
        return (
            torch.accelerator.current_accelerator() or torch.device("cpu")
            if torch.accelerator.is_available()
            else torch.device("cpu")
        )
    try:
        return torch.device(name)
    except RuntimeError:
        raise RecipeError(f"unknown device {name!r}; use auto, cpu, cuda or cuda:1") from None


def _call(builder: Callable[..., Any], spec: Network) -> nn.Module:
    try:
        inspect.signature(builder).bind(**spec.arguments)
        model = builder(**spec.arguments)
    except (TypeError, ValueError) as error:
        raise RecipeError(f"network {spec.model!r} with arguments {spec.arguments}: {error}") from None
    if not isinstance(model, nn.Module):
        raise RecipeError(f"{spec.model!r} gives {type(model).__name__}, not a torch.nn.Module")
    return model.eval()


def dataset(spec: Data) -> Dataset:
    """Rows by a reader of the zoo or of the user's own, which is an import path and runs the code it names."""
    if spec.reader in READERS:
        found = read(spec.reader, **spec.arguments)
    elif ":" in spec.reader:
        found = imported(spec.reader)(**spec.arguments)
    else:
        raise RecipeError(f"no reader {spec.reader!r}{nearest_name(spec.reader, sorted(READERS))}")
    if not isinstance(found, Dataset):
        raise RecipeError(f"reader {spec.reader!r} gives {type(found).__name__}, not a pluria Dataset")
    return found if spec.rows is None else found.take(slice(0, spec.rows))


def _hugging_face(folder: Path) -> nn.Module:
    try:
        import transformers
    except ImportError:
        raise RecipeError("a Hugging Face folder needs transformers: pip install 'pluria[hf]'") from None
    kinds = json.loads((folder / "config.json").read_text(encoding="utf-8")).get("architectures") or ["AutoModel"]
    kind = getattr(transformers, kinds[0], None)
    if kind is None:
        raise RecipeError(f"{folder}: transformers {transformers.__version__} has no architecture {kinds[0]!r}")
    try:
        return kind.from_pretrained(folder, local_files_only=True).eval()  # type: ignore[no-any-return]
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{folder}: {error}") from None
