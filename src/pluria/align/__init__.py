"""align: make members fit together."""

from pluria.align.refresh import has_batch_norm, refresh

__all__ = ["has_batch_norm", "refresh"]
