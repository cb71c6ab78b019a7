"""Regrowths: what an update does besides removing weights, on plain arrays."""

from kprune.regrowth.base import Regrowth, Update
from kprune.regrowth.exchange import SET, DropAndGrow, RigL
from kprune.regrowth.splicing import DynamicNetworkSurgery

__all__ = [
    "SET",
    "DropAndGrow",
    "DynamicNetworkSurgery",
    "Regrowth",
    "RigL",
    "Update",
]
