"""Channels physically removed: smaller weights, smaller tensors, fewer operations."""

from kprune.channels.numbers import Reason
from kprune.channels.rules import ChannelRule
from kprune.shrinking.removal import ShrinkError
from kprune.shrinking.report import LayerChange, ShrinkReport, Stuck, WhyNot
from kprune.shrinking.shrink import shrink
from kprune.shrinking.why_not import why_not

__all__ = [
    "ChannelRule",
    "LayerChange",
    "Reason",
    "ShrinkError",
    "ShrinkReport",
    "Stuck",
    "WhyNot",
    "shrink",
    "why_not",
]
