"""Whose rounded layers feedback should follow, on the small storyteller among the real data and its own stories."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from pluria.core.ensemble import Ensemble
from pluria.predict import gather, predict
from pluria.sample import compensated, gptq
from study.stories import stories, storyteller

pytestmark = pytest.mark.study

FOLLOW = ("model", "reference", "member")


def test_members_that_follow_themselves_are_nearest_to_the_network(real_data: Path) -> None:
    pytest.importorskip("transformers", reason="transformers is not installed")
    model = storyteller(real_data / "stories260k" / "stories260K.bin")
    calibration = [{"input_ids": part} for part in stories(model, 32, 128, seed=0).split(8)]
    figures = [{"input_ids": part} for part in stories(model, 48, 128, seed=1).split(16)]
    with torch.no_grad():
        full = torch.cat([model(**batch).logits for batch in figures]).double().log_softmax(-1)

    def divergence(log: Tensor) -> float:
        return float((full.exp() * (full - log)).sum(-1).mean())

    def both(ensemble: Ensemble) -> tuple[float, float]:
        """Mean divergence of the members and that of their mean, in nats a token."""
        logs = gather(predict(model, ensemble, figures))[0].double().log_softmax(-1)
        return sum(map(divergence, logs)) / len(logs), divergence(logs.exp().mean(0).log())

    for format in ("int3", "int4"):
        for follow in ("model", "reference"):
            print(
                f"{format} one model  {follow:9} {both(gptq(model, calibration, format=format, follow=follow))[0]:.4f}"
            )
        found: dict[str, list[tuple[float, float]]] = {follow: [] for follow in FOLLOW}
        for seed in range(3):
            for follow in FOLLOW:
                made = both(compensated(model, calibration, format=format, members=4, key=seed, follow=follow))
                found[follow].append(made)
                print(f"{format} seed {seed}     {follow:9} member {made[0]:.4f} mean {made[1]:.4f}")
        for own, plain in zip(found["member"], found["model"], strict=True):
            assert own[0] < plain[0]
            assert own[1] < plain[1]
