"""Exact selection of the best of very many scores."""

from kprune.selection.largest import keep_largest
from kprune.selection.sized import keep_by_size

__all__ = ["keep_by_size", "keep_largest"]
