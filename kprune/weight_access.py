"""Weights and masks read and set from Python, between two training steps.

A small model's masks are found in a fraction of a millisecond. The Python around
each TensorFlow operation takes longer than that, so the variables are touched here
as directly as their public methods allow.
"""

import numpy as np
import tensorflow as tf

from kprune.mask_store import average_of


def as_array(variable):
    """Returns the present value of a variable, without copying it if possible.

    Args:
        variable: A Keras variable.

    Returns:
        NumPy array, to be read only.
    """
    tensor = variable.value.value()
    try:
        return np.asarray(memoryview(tensor))
    except (TypeError, ValueError, BufferError):  # bfloat16 has no buffer format
        return np.asarray(tensor)


def assign_mask(entry, mask):
    """Sets a mask and zeroes what it removes, in the weight and its average.

    Args:
        entry: `MaskedWeight`. Its variables are changed.
        mask: Bool array of the weight's shape.
    """
    mask = tf.constant(mask)
    optimizer = entry.variable.constraint.optimizer
    entry.mask.value.assign(mask, read_value=False)
    for variable in (entry.variable, average_of(entry.variable, optimizer)):
        if variable is not None:
            value = variable.value.value()
            # Unlike a product with the mask, this needs no float copy of it.
            value = tf.where(mask, value, tf.zeros((), value.dtype))
            variable.value.assign(value, read_value=False)
