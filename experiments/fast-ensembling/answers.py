"""What every member of a seed answers on the test images: asked once, kept, and put together afterwards."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from runs import Setting
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

import pluria
from pluria.align import has_batch_norm
from pluria.core.ensemble import Ensemble
from pluria.predict import gather, predict
from pluria.zoo import Dataset

DRAWS = {"end": 8, "sse": 2, "csghmc": 1, "swa": 8, "ivon_mean": 8}
"""What is rounded as well, and how many draws of each member."""

MOST = 8
"""Members that are asked of a Gaussian."""


@dataclass(frozen=True)
class Answers:
    """Members of one kind and their logits `[K, N, C]`, in the members' order."""

    ensemble: Ensemble
    logits: Tensor

    def take(self, positions: list[int]) -> Answers:
        """Some of them."""
        return Answers(self.ensemble.take(positions), self.logits[positions])

    def first(self, count: int) -> Answers:
        """The first `count`."""
        return self.take(list(range(count)))


def kinds(setting: Setting, found: Mapping[str, Ensemble]) -> Iterator[tuple[str, Callable[[], Ensemble]]]:
    """Names and members: as a run left them, and rounded to INT-5, where each draw goes over all members in turn."""
    roles = pluria.roles(setting.model())
    for name, own in found.items():
        if name in ("late", "later"):
            continue
        most = MOST if name in ("swag", "ivon") else len(own)
        yield name, lambda own=own, most=most: own.first(most)
        if name in DRAWS:
            many = DRAWS[name] * len(own)
            yield (
                f"{name}, INT-5",
                lambda own=own, many=many: pluria.low_precision(own, members=many, roles=roles, key=setting.seed),
            )
    yield "end, nearest INT-5", lambda: pluria.nearest(found["end"], roles=roles)


def ask(setting: Setting, found: Mapping[str, Ensemble], test: Dataset) -> dict[str, Answers]:
    """All kinds of one seed; a kind that has been asked before comes from its file."""
    model, told = setting.model().eval().to(memory_format=setting.layout), {}  # type: ignore[call-overload]
    for name, make in kinds(setting, found):
        file = setting.folder / f"answers-{name.replace(', ', '-').replace(' ', '-')}.safetensors"
        ensemble = make()
        if not file.exists():
            if has_batch_norm(model) and (", " in name or name in ("swa", "swag", "ivon", "ivon_mean")):
                batches = [x for number in range(2) for x, _ in setting.epoch(number)]
                ensemble = pluria.refresh(model, ensemble, batches, plain=True)
            keep(file, model, ensemble, test, setting.layout)
            print(f"seed {setting.seed}: {name} × {len(ensemble)} asked", flush=True)
        told[name] = Answers(ensemble, load_file(file)["logits"])
    return told


def keep(file: Path, model: nn.Module, ensemble: Ensemble, test: Dataset, layout: torch.memory_format) -> None:
    """Ask every member once, in the arithmetic of the training."""
    blocks = predict(model, ensemble, test.batches(250), channels_last=layout == torch.channels_last)
    with torch.autocast("cpu", torch.bfloat16):
        logits, _ = gather(blocks)
    fresh = file.with_suffix(".new")
    save_file({"logits": logits}, fresh)
    fresh.rename(file)
