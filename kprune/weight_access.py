"""Weights and masks read and set from Python, between two training steps.

A small model's masks are found in a fraction of a millisecond. The Python around
each TensorFlow operation takes longer than that, so the variables are touched here
as directly as public methods allow.
"""

import numpy as np
import tensorflow as tf


def as_array(variable):
    """Returns the present value of a variable, without copying it if possible.

    Args:
        variable: A Keras variable.

    Returns:
        NumPy array, to be read only.
    """
    tensor = _read(variable.value)
    try:
        return np.asarray(memoryview(tensor))
    except (TypeError, ValueError, BufferError):  # bfloat16 has no buffer format
        return np.asarray(tensor)


def write(variable, value):
    """Sets a variable, in all its replicas.

    Args:
        variable: A Keras variable. It is changed.
        value: Tensor or array of its shape and dtype. An array is given away: the
            variable may live in its memory.
    """
    native = variable.value
    if isinstance(native, tf.distribute.DistributedValues):
        native.assign(value, read_value=False)
    else:
        tf.raw_ops.AssignVariableOp(resource=native.handle, value=value)


def write_masked(variable, value, mask):
    """Zeroes the elements of a variable where a mask is `False`.

    Args:
        variable: A Keras variable of floats. It is changed.
        value: Its value, as `as_array` has given it.
        mask: Bool array of its shape.
    """
    if mask.size > _SMALL:
        value = _read(variable.value)
        # Unlike a product with the mask, this needs no float copy of it.
        write(variable, tf.where(mask, value, tf.zeros((), value.dtype)))
    else:
        write(variable, zeroed(value, mask))


_SMALL = 1 << 20  # Up to so many elements, one core is done before others awake.


def _read(native):
    if isinstance(native, tf.distribute.DistributedValues):
        return native.value()
    return tf.raw_ops.ReadVariableOp(resource=native.handle, dtype=native.dtype)


def zeroed(value, mask):
    """Returns an array with zeros where the mask is `False`.

    Args:
        value: Float array of 2, 4 or 8 bytes an element.
        mask: Bool array of its shape.

    Returns:
        Array like `value`; kept elements are bit for bit the same, the others are
        0.0 whatever they were, NaN too.

    Example:
    >>> zeroed(np.array([-1.5, np.nan]), np.array([True, False]))
    array([-1.5,  0. ])
    """
    # All bits set, or none. `where` takes three times as long, since the processor
    # can't predict a random mask.
    bits = (-mask.view(np.int8)).astype(f"i{value.itemsize}")
    bits &= value.view(bits.dtype)
    return bits.view(value.dtype)
