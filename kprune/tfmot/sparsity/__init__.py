"""The name space `kprune.tfmot.sparsity`, as TFMOT has it."""

from kprune.tfmot.sparsity import keras

__all__ = ["keras"]
