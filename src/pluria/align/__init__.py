"""align: make members fit together."""

from pluria.align.groups import Groups, permuted
from pluria.align.infer import infer_groups
from pluria.align.rebasin import rebasin
from pluria.align.refresh import has_batch_norm, refresh

__all__ = ["Groups", "has_batch_norm", "infer_groups", "permuted", "rebasin", "refresh"]
