"""Granularities: what is removed together."""

from kprune.granularity.base import Granularity, Units
from kprune.granularity.channel import Channel
from kprune.granularity.element import Element

__all__ = ["Channel", "Element", "Granularity", "Units"]
