"""A network from a local Hugging Face folder, with its checkpoint; nothing is downloaded.

    config.json                                     the architecture
    model.safetensors, pytorch_model.bin            the checkpoint, whole
    ....index.json and its shards                   the checkpoint in parts

Only tensors are read: a `.bin` that holds more is refused, and code that comes with a folder is run only by consent.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import nn

from pluria.core.errors import CheckpointError
from pluria.core.params import check_finite
from pluria.store.checkpoint import checkpoint_in, shards_of
from pluria.store.quantised import refuse_configured, refuse_quantised
from pluria.store.tensors import DTYPES, opened
from pluria.store.unpickle import is_torch_file, read_torch

SHOWN = 5
DTYPE = {name: dtype for dtype, name in DTYPES.items()}


def network_in(folder: str | Path, *, trust: bool = False) -> nn.Module:
    """The network that a folder's `config.json` names, with the folder's checkpoint, in evaluation mode.

    trust   run the code that comes with the folder, where its architecture is not one of transformers' own

    Raises CheckpointError without transformers, for an architecture it does not have, and for a folder that has no
    configuration or no checkpoint, lacks a shard or a tensor (which would be filled with random numbers), is quantised
    already, holds NaN or Inf, or needs code to be run.
    """
    place, library = Path(folder), hugging_face()
    config = _config(place)
    kind, options = _kind(place, config, library, trust)
    _refuse_unfit(place)
    try:
        with without_bars(library):
            model, told = kind.from_pretrained(place, local_files_only=True, output_loading_info=True, **options)
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise CheckpointError(f"{place}: {error}") from None
    if missing := sorted(told["missing_keys"]):
        more = f" and {len(missing) - SHOWN} more" if len(missing) > SHOWN else ""
        raise CheckpointError(f"{place}: the checkpoint lacks {', '.join(missing[:SHOWN])}{more}")
    check_finite(model.state_dict(), what=str(place))
    return model.eval()  # type: ignore[no-any-return]


def hugging_face() -> Any:
    """The library transformers; CheckpointError where it is not installed."""
    try:
        import transformers
    except ImportError:
        raise CheckpointError("a Hugging Face folder needs transformers: pip install 'pluria[hf]'") from None
    return transformers


@contextmanager
def without_bars(library: Any) -> Iterator[None]:
    """Without the library's own progress bars and reports, which know nothing of `--quiet`."""
    logging = library.utils.logging
    shown, level = logging.is_progress_bar_enabled(), logging.get_verbosity()
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if shown:
            logging.enable_progress_bar()


def _config(folder: Path) -> dict[str, Any]:
    file = folder / "config.json"
    if not file.is_file():
        raise CheckpointError(f"{folder}: this is no Hugging Face folder, it has no config.json")
    try:
        held = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{file} is not JSON: {error}") from None
    if not isinstance(held, dict):
        raise CheckpointError(f"{file} holds no mapping")
    refuse_configured(held, what=str(folder))
    return held


def _kind(folder: Path, config: Mapping[str, Any], library: Any, trust: bool) -> tuple[Any, dict[str, Any]]:
    """The class that reads the folder, and options for it."""
    name = (config.get("architectures") or ["AutoModel"])[0]
    if hasattr(kind := getattr(library, name, None), "from_pretrained"):
        return kind, {}
    own = config.get("auto_map") or {}
    auto = next((key for key, path in own.items() if str(path).rpartition(".")[2] == name), None)
    if auto is None or not hasattr(library, auto):
        raise CheckpointError(f"{folder}: transformers {library.__version__} has no architecture {name!r}")
    if not trust:
        raise CheckpointError(
            f"{folder}: the architecture {name!r} is code that comes with the folder ({own[auto]}) and would be run. "
            "Read it, and where you trust it, allow it: trust=True, or --trust on the command line"
        )
    return getattr(library, auto), {"trust_remote_code": True}


def _refuse_unfit(folder: Path) -> None:
    """A checkpoint that is not there, not whole, not tensors alone, or quantised already."""
    place = checkpoint_in(folder)
    indexed = place.name.endswith(".index.json")
    for file in [folder / shard for shard in dict.fromkeys(shards_of(place).values())] if indexed else [place]:
        refuse_quantised(_outline(file), what=str(folder))


def _outline(file: Path) -> Mapping[str, Any]:
    """Names and dtypes in a file; a safetensors file is asked for its header alone."""
    if is_torch_file(file):
        return read_torch(file)
    with opened(file, CheckpointError) as handle:
        slices = {name: handle.get_slice(name) for name in handle.keys()}  # noqa: SIM118
        known = {name: (part.get_shape(), DTYPE.get(part.get_dtype())) for name, part in slices.items()}
    return {name: torch.empty(shape, dtype=dtype, device="meta") for name, (shape, dtype) in known.items() if dtype}
