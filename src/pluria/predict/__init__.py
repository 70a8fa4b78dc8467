"""predict: run an ensemble's members on batches, here or over several workers."""

from pluria.predict.ask import Asked, Part, ask
from pluria.predict.batches import Batches, first, logits
from pluria.predict.choose import Choice
from pluria.predict.cluster import Ray
from pluria.predict.gather import gather
from pluria.predict.linear import EnsembleLinear, ensemble_linear
from pluria.predict.loop import Block, Runner, View, choose_backend, identity, predict, runner
from pluria.predict.map import Mapper, local
from pluria.predict.processes import Processes
from pluria.predict.shards import summed

__all__ = [
    "Asked",
    "Batches",
    "Block",
    "Choice",
    "EnsembleLinear",
    "Mapper",
    "Part",
    "Processes",
    "Ray",
    "Runner",
    "View",
    "ask",
    "choose_backend",
    "ensemble_linear",
    "first",
    "gather",
    "identity",
    "local",
    "logits",
    "predict",
    "runner",
    "summed",
]
