"""Rules for the layers and operations of Keras, by type."""

from kprune.shrinking.rules import (
    activation,
    elementwise,
    kernels,
    movement,
    normalization,
    places,
)
from kprune.shrinking.rules.base import ChannelRule, rule_of

__all__ = [
    "ChannelRule",
    "activation",
    "elementwise",
    "kernels",
    "movement",
    "normalization",
    "places",
    "rule_of",
]
