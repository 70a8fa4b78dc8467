"""predict: run an ensemble's members on batches."""

from pluria.predict.batches import Batches, first, logits
from pluria.predict.gather import gather
from pluria.predict.loop import Block, View, identity, predict, runner

__all__ = ["Batches", "Block", "View", "first", "gather", "identity", "logits", "predict", "runner"]
