"""Granularities: what is removed together."""

from kprune.granularity.base import Granularity, Tie, Units
from kprune.granularity.block import Block
from kprune.granularity.channel import Channel, Kernel, Vector
from kprune.granularity.element import Element
from kprune.granularity.head import AttentionHead
from kprune.granularity.n_of_m import NofM
from kprune.granularity.tiles import Tiled, tiled

__all__ = [
    "AttentionHead",
    "Block",
    "Channel",
    "Element",
    "Granularity",
    "Kernel",
    "NofM",
    "Tie",
    "Tiled",
    "Units",
    "Vector",
    "tiled",
]
