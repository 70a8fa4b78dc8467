"""Members that are run on data: all of them, or those that a cascade asks."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from pluria.cli.options import Progress

if TYPE_CHECKING:
    from torch import Tensor

    from pluria.pool import Cascade
    from pluria.predict import Block, Part
    from pluria.zoo.dataset import Dataset


def run_parts(
    parts: list[Part],
    rule: Cascade | None,
    rows: Dataset,
    weights: Tensor,
    progress: Progress,
    *,
    batch: int,
    device: str,
    dtype: str,
    backend: str,
) -> dict[str, Tensor]:
    """Outputs `[K, N, ..., C]`, targets where there are some, and weights; with a rule also who was asked, `[K, N]`."""
    import torch

    from pluria.recipe.resolve import device_of

    if dtype not in ("float32", "bfloat16"):
        raise ValueError(f"--dtype is float32 or bfloat16; got {dtype!r}")
    options: dict[str, Any] = {"class_axis": 1, "device": device_of(device), "dtype": getattr(torch, dtype)}
    options["backend"] = backend
    batches = rows.batches(batch)
    found = (
        _everybody(parts, batches, progress, options)
        if rule is None
        else _asked(parts, rule, batches, weights, progress, options)
    )
    return {name: value for name, value in (found | {"weights": weights}).items() if value is not None}


def _everybody(parts: list[Part], batches: Any, progress: Progress, options: dict[str, Any]) -> dict[str, Any]:
    import torch

    from pluria.predict import gather, predict

    # All are made before any is run, so that what does not fit is said at once.
    runs = [predict(one.model, one.ensemble, batches, views=one.views, **options) for one in parts]
    steps = [len(one.ensemble) * len(batches) for one in parts]
    each = [gather(_counted(blocks, count, progress)) for blocks, count in zip(runs, steps, strict=True)]
    return {"outputs": torch.cat([outputs for outputs, _ in each]), "targets": each[0][1]}


def _asked(
    parts: list[Part], rule: Cascade, batches: Any, weights: Tensor, progress: Progress, options: dict[str, Any]
) -> dict[str, Any]:
    from pluria.predict import ask

    def told(stage: int, rows: int) -> None:
        progress(f"stage {stage + 1}, {rows} examples", stage, len(rule.stages))

    return dict(vars(ask(parts, rule, batches, weights=weights, told=told, **options)))


def _counted(blocks: Iterator[Block], steps: int, progress: Progress) -> Iterator[Block]:
    for done, block in enumerate(blocks, 1):
        yield block
        progress("predicting", done, steps)
