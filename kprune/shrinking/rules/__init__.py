"""Rules for the layers and operations of Keras, by type."""

from kprune.shrinking.rules import (
    activation,
    attention,
    convolutions,
    einsum,
    elementwise,
    kernels,
    movement,
    normalization,
    picking,
    places,
    products,
    recurrent,
    reductions,
    unary,
    wrappers,
)
from kprune.shrinking.rules.base import ChannelRule, rule_of

__all__ = [
    "ChannelRule",
    "activation",
    "attention",
    "convolutions",
    "einsum",
    "elementwise",
    "kernels",
    "movement",
    "normalization",
    "picking",
    "places",
    "products",
    "recurrent",
    "reductions",
    "rule_of",
    "unary",
    "wrappers",
]
