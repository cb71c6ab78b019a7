"""How many multiply-adds the layers and operations of Keras do, by type."""

from kprune.multiply_adds import kernels, operations, sequences
from kprune.multiply_adds.base import Use, Work, work_of
from kprune.multiply_adds.counting import shapes_of_one, works

__all__ = [
    "Use",
    "Work",
    "kernels",
    "operations",
    "sequences",
    "shapes_of_one",
    "work_of",
    "works",
]
