"""The name space `kprune.tfmot.clustering`, as TFMOT has it."""

from kprune.tfmot.clustering import keras

__all__ = ["keras"]
