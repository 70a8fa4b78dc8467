"""sample: many models out of one, without training."""

from pluria.sample.choose import Choice, choose_format
from pluria.sample.dropout import dropout
from pluria.sample.gaussian import gaussian, isotropic
from pluria.sample.noise import LayerNoise, left_alone, noise
from pluria.sample.plane import Plane, path, plane
from pluria.sample.rounding import low_precision, nearest

__all__ = [
    "Choice",
    "LayerNoise",
    "Plane",
    "choose_format",
    "dropout",
    "gaussian",
    "isotropic",
    "left_alone",
    "low_precision",
    "nearest",
    "noise",
    "path",
    "plane",
]
