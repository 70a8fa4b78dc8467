"""align: make members fit together."""

from pluria.align.groups import Groups, permuted
from pluria.align.infer import infer_groups
from pluria.align.rebasin import rebasin
from pluria.align.refresh import has_batch_norm, refresh
from pluria.align.repair import repair, variance_ratios
from pluria.align.statistics import pooled_statistics
from pluria.align.trunk import zip_trunk
from pluria.align.zipit import zipit

__all__ = [
    "Groups",
    "has_batch_norm",
    "infer_groups",
    "permuted",
    "pooled_statistics",
    "rebasin",
    "refresh",
    "repair",
    "variance_ratios",
    "zip_trunk",
    "zipit",
]
