"""predict: run an ensemble's members on batches."""

from pluria.predict.ask import Asked, Part, ask
from pluria.predict.batches import Batches, first, logits
from pluria.predict.gather import gather
from pluria.predict.loop import Block, Runner, View, identity, predict, runner

__all__ = [
    "Asked",
    "Batches",
    "Block",
    "Part",
    "Runner",
    "View",
    "ask",
    "first",
    "gather",
    "identity",
    "logits",
    "predict",
    "runner",
]
