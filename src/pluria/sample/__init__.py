"""sample: many models out of one, without training."""

from pluria.sample.choose import Choice, choose_format
from pluria.sample.compensated import compensated, gptq
from pluria.sample.dropout import dropout
from pluria.sample.gaussian import gaussian, isotropic
from pluria.sample.moments import Moments, moments
from pluria.sample.noise import LayerNoise, left_alone, noise, output_error
from pluria.sample.plane import Plane, path, plane
from pluria.sample.rounding import low_precision, nearest

__all__ = [
    "Choice",
    "LayerNoise",
    "Moments",
    "Plane",
    "choose_format",
    "compensated",
    "dropout",
    "gaussian",
    "gptq",
    "isotropic",
    "left_alone",
    "low_precision",
    "moments",
    "nearest",
    "noise",
    "output_error",
    "path",
    "plane",
]
