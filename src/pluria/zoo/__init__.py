"""Small reference networks, readers of data sets, image views and a tiny training loop (`pluria.zoo.fit`)."""

from pluria.zoo.dataset import IGNORED, Batches, Dataset
from pluria.zoo.networks import NETWORKS, network
from pluria.zoo.readers import READERS, read
from pluria.zoo.views import VIEWS, View, view

__all__ = ["IGNORED", "NETWORKS", "READERS", "VIEWS", "Batches", "Dataset", "View", "network", "read", "view"]
