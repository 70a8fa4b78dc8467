"""LoRA adapters in the folders that PEFT writes: `adapter_config.json` beside `adapter_model.safetensors`.

    base_model.model.NAME.lora_A.weight   [r, in]            scale   alpha / r, or alpha / sqrt(r) with `use_rslora`
    base_model.model.NAME.lora_B.weight   [out, r]           r, alpha by layer: `rank_pattern`, `alpha_pattern`

What would change the answer and is not read here is refused by its name.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from pluria.core.adapter import Adapter, LowRank
from pluria.core.errors import CheckpointError
from pluria.core.params import check_finite
from pluria.store.atomic import replacing
from pluria.store.tensors import opened, read_tensor, write_tensors

CONFIG, TENSORS = "adapter_config.json", "adapter_model.safetensors"
READ = {"peft_type", "r", "lora_alpha", "use_rslora", "rank_pattern", "alpha_pattern", "fan_in_fan_out", "bias",
        "init_lora_weights"}  # fmt: skip
SILENT = {"task_type", "auto_mapping", "peft_version", "base_model_name_or_path", "revision", "inference_mode",
          "target_modules", "exclude_modules", "lora_dropout", "layers_to_transform", "layers_pattern",
          "megatron_core", "qalora_group_size", "runtime_config", "ensure_weight_tying", "loftq_config", "eva_config",
          }  # fmt: skip
"""Keys that say how an adapter was made or where it goes, which its tensors' names say as well."""
STARTS = (True, False, "gaussian", "orthogonal", "eva")
"""Ways to begin that leave the base as it is."""


def read_peft(folder: str | Path) -> dict[str, LowRank]:
    """The LoRA adapter in a folder of PEFT's, by names of weights as in the network's state dict.

    Raises CheckpointError for other kinds of adapters, for keys of the configuration that change the answer and are not
    read (`use_dora`, `modules_to_save`, a `bias`, a start that changes the base, ...), for tensors that are no
    factors of a linear layer or convolution, for ranks that are not those of the configuration, and for NaN and Inf.
    """
    place = Path(folder)
    config = _config(place / CONFIG)
    with opened(place / TENSORS, CheckpointError) as handle:
        tensors = {name: read_tensor(handle, name) for name in handle.keys()}  # noqa: SIM118
    check_finite(tensors, what=str(place))
    made = {}
    for module, (down, up) in _pairs(tensors, place).items():
        rank = int(_of("rank_pattern", config, module, config["r"]))
        alpha = float(_of("alpha_pattern", config, module, config.get("lora_alpha", 8)))
        if down.shape[0] != rank or up.shape[1] != rank:
            found = f"{list(up.shape)} and {list(down.shape)}"
            raise CheckpointError(f"{place}: {module} has factors {found}, and rank {rank} by {CONFIG}")
        scale = alpha / (math.sqrt(rank) if config.get("use_rslora") else rank)
        left, right = up.flatten(1), down.flatten(1)
        turned = bool(config.get("fan_in_fan_out"))
        made[f"{module}.weight"] = LowRank(right.T, left.T, scale) if turned else LowRank(left, right, scale)
    return made


def write_peft(adapter: Adapter, folder: str | Path) -> None:
    """Write an adapter of linear layers as a folder that PEFT reads; scales become part of `lora_B`.

    Each layer keeps its own rank. Raises ValueError for names that are no layer's weight.
    """
    if odd := [name for name in adapter if not name.endswith(".weight")]:
        raise ValueError(f"an adapter is of layers' weights; {odd[0]!r} is none")
    place, rank = Path(folder), max(part.rank for part in adapter.values())
    modules = {name.removesuffix(".weight"): part for name, part in adapter.items()}
    # PEFT reads patterns as regular expressions that may begin anywhere.
    other = {f"^{re.escape(name)}": part.rank for name, part in modules.items() if part.rank != rank}
    config = {"peft_type": "LORA", "r": rank, "lora_alpha": rank, "target_modules": sorted(modules), "bias": "none",
              "rank_pattern": other, "alpha_pattern": other, "inference_mode": True}  # fmt: skip
    tensors = {}
    for name, part in modules.items():
        tensors[f"base_model.model.{name}.lora_A.weight"] = part.right.detach().contiguous()
        tensors[f"base_model.model.{name}.lora_B.weight"] = (part.scale * part.left.detach()).contiguous()
    place.mkdir(parents=True, exist_ok=True)
    write_tensors(place / TENSORS, tensors, {"format": "pt"})
    with replacing(place / CONFIG) as file:
        file.write(json.dumps(config, indent=2).encode())


def _config(path: Path) -> Mapping[str, Any]:
    """The configuration, with nothing in it that would be overlooked."""
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        raise CheckpointError(f"{path.parent} has no {CONFIG}; give a folder that PEFT wrote") from None
    except ValueError as error:
        raise CheckpointError(f"{path} is no JSON: {error}") from None
    if config.get("peft_type") != "LORA" or "r" not in config:
        raise CheckpointError(
            f"{path}: adapters of type LORA are read, with their rank r; got {config.get('peft_type')!r}"
        )
    odd = [name for name, value in config.items() if value and name not in READ | SILENT]
    if config.get("bias", "none") != "none":
        odd.append("bias")
    if config.get("init_lora_weights", True) not in STARTS:
        odd.append("init_lora_weights")
    if odd:
        told = ", ".join(f"{name}={config[name]!r}" for name in odd)
        raise CheckpointError(f"{path}: not read here: {told}. Merge this adapter with PEFT itself")
    return config  # type: ignore[no-any-return]


def _pairs(tensors: Mapping[str, Tensor], place: Path) -> dict[str, tuple[Tensor, Tensor]]:
    """Module names to (lora_A, lora_B)."""
    found: dict[str, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        match = re.fullmatch(r"base_model\.model\.(.+)\.lora_([AB])\.weight", name)
        if match is None or value.ndim < 2:
            raise CheckpointError(f"{place}: tensor {name!r} is no factor of a linear layer or convolution")
        found.setdefault(match[1], {})[match[2]] = value
    if alone := [module for module, pair in found.items() if len(pair) != 2]:
        raise CheckpointError(f"{place}: {alone[0]} has one factor of two; take another copy")
    return {module: (pair["A"], pair["B"]) for module, pair in found.items()}


def _of(pattern: str, config: Mapping[str, Any], module: str, default: Any) -> Any:
    """What a pattern says of a module: its keys are regular expressions for the end of the name."""
    for key, value in (config.get(pattern) or {}).items():
        if re.match(rf"(.*\.)?({key})$", module):
            return value
    return default
