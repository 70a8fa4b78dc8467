"""A network from a folder as transformers saves it, with its checkpoint; nothing is downloaded."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from torch import nn

from pluria.core.errors import CheckpointError, RecipeError
from pluria.store.quantised import refuse_configured

SHOWN = 5


def network_in(folder: Path) -> nn.Module:
    """The network that a folder's `config.json` names, with the folder's checkpoint, in evaluation mode.

    Raises RecipeError without transformers or for an architecture it does not have; CheckpointError for a folder that
    cannot be read, is quantised already, or lacks a tensor, which transformers would fill with random numbers.
    """
    try:
        import transformers
    except ImportError:
        raise RecipeError("a Hugging Face folder needs transformers: pip install 'pluria[hf]'") from None
    name = (_config(folder).get("architectures") or ["AutoModel"])[0]
    kind = getattr(transformers, name, None)
    if kind is None:
        raise RecipeError(f"{folder}: transformers {transformers.__version__} has no architecture {name!r}")
    try:
        with _without_bars(transformers.utils.logging):
            model, told = kind.from_pretrained(folder, local_files_only=True, output_loading_info=True)
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise CheckpointError(f"{folder}: {error}") from None
    if missing := sorted(told["missing_keys"]):
        more = f" and {len(missing) - SHOWN} more" if len(missing) > SHOWN else ""
        raise CheckpointError(f"{folder}: the checkpoint lacks {', '.join(missing[:SHOWN])}{more}")
    return model.eval()  # type: ignore[no-any-return]


def _config(folder: Path) -> dict[str, Any]:
    try:
        held = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except ValueError as error:
        raise CheckpointError(f"{folder / 'config.json'} is not JSON: {error}") from None
    if not isinstance(held, dict):
        raise CheckpointError(f"{folder / 'config.json'} holds no mapping")
    refuse_configured(held, what=str(folder))
    return held


@contextmanager
def _without_bars(logging: Any) -> Iterator[None]:
    """Without the library's own progress bars, which know nothing of `--quiet`."""
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()
