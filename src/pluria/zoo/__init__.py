"""Small networks, readers of data sets, views and changed copies of images, a tiny training loop (`pluria.zoo.fit`)."""

from pluria.zoo.dataset import IGNORED, Batches, Dataset
from pluria.zoo.networks import NETWORKS, network
from pluria.zoo.readers import READERS, read
from pluria.zoo.shifts import SHIFTS, shifted
from pluria.zoo.views import VIEWS, View, view

__all__ = [
    "IGNORED",
    "NETWORKS",
    "READERS",
    "SHIFTS",
    "VIEWS",
    "Batches",
    "Dataset",
    "View",
    "network",
    "read",
    "shifted",
    "view",
]
