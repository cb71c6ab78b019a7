"""Criteria: how a weight is scored. Larger scores stay."""

from kprune.criteria.base import Criterion
from kprune.criteria.weights import Magnitude

__all__ = ["Criterion", "Magnitude"]
