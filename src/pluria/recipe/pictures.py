"""The examples whose members disagree most, as small PNG pictures where the inputs are images."""

from __future__ import annotations

import base64
import io
from typing import Any

import torch
from torch import Tensor

from pluria.pool import mean_probability
from pluria.score import flatten, member_sums, mutual_information
from pluria.zoo.dataset import IGNORED, Dataset

SHOWN = 12
SIDE = 96


def disagreed(rows: Dataset, outputs: Tensor) -> list[dict[str, Any]]:
    """Up to 12 examples by falling mutual information: label, votes, pooled probability, and a picture or None.

    Dense outputs have no list: a place in a picture says little alone.
    """
    if outputs.ndim != 3 or bool((rows.targets == IGNORED).any()):
        return []
    logits, _ = flatten(outputs.to(torch.float64), rows.targets)
    information = mutual_information(member_sums(logits))
    order = information.argsort(descending=True, stable=True)[:SHOWN].tolist()
    pooled, votes = mean_probability(logits).exp(), logits.argmax(-1)
    return [_entry(rows, n, float(information[n]), pooled[n], votes[:, n]) for n in order]


def _entry(rows: Dataset, n: int, information: float, pooled: Tensor, votes: Tensor) -> dict[str, Any]:
    counts = torch.bincount(votes, minlength=len(rows.classes)).tolist()
    told = sorted(((c, i) for i, c in enumerate(counts) if c), reverse=True)
    return {
        "row": n,
        "label": rows.classes[int(rows.targets[n])],
        "answer": rows.classes[int(pooled.argmax())],
        "probability": float(pooled.max()),
        "information": information,
        "votes": [[rows.classes[i], c] for c, i in told],
        "picture": picture(rows.inputs[n], getattr(rows, "scale", None)),
    }


def picture(image: Tensor, scale: float | None = None) -> str | None:
    """A data URI of a PNG of an image `[C, H, W]` with 1 or 3 channels, else None.

    uint8 images go up to `scale` (255 by default), floating ones are stretched to their own range.
    """
    if image.ndim != 3 or image.shape[0] not in (1, 3):
        return None
    from PIL import Image

    whole = image.dtype == torch.uint8
    low, high = (0.0, scale or 255.0) if whole else (float(image.min()), float(image.max()))
    bright = (image.to(torch.float32) - low) / max(high - low, 1e-12)
    shown = (bright * 255).round().clamp(0, 255).to(torch.uint8)
    array = shown.permute(1, 2, 0).squeeze(-1).contiguous().numpy()
    small = Image.fromarray(array)
    times = max(1, SIDE // max(small.size))
    small = small.resize((small.width * times, small.height * times), Image.Resampling.NEAREST)
    stream = io.BytesIO()
    small.save(stream, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(stream.getvalue()).decode()
