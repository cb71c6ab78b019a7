"""`MaskedWeight`: a weight with its mask, and how its zeros are held at zero.

The zeros are held by the constraint of the variable, which Keras applies inside
the compiled step after each optimizer update. No Python runs per batch for it.
"""

import dataclasses

import keras
import tensorflow as tf

from kprune.clock import applying_optimizer
from kprune.optimizer_slots import average_of
from kprune.scopes.names import WeightName
from kprune.tracked import Tracked

_LARGE = 2**20  # elements


@dataclasses.dataclass
class MaskedWeight:
    """A weight variable with its mask.

    Attributes:
        path: String, where the variable is found in the layer or model that the
            store belongs to.
        variable: The Keras variable.
        mask: Boolean Keras variable of its shape, `True` keeps the weight.
        layer: The layer that owns the variable.
        name: `WeightName`, what the weight is called beside those of other layers,
            such as `"block_1/query_dense/kernel"`.
        tracked: The `Tracked` variables of the store.
        following: Boolean Keras variable that can be broadcast against the weight,
            what is left of the channels that it takes in, or `None`.
    """

    path: str
    variable: object
    mask: object
    layer: keras.Layer
    name: WeightName
    tracked: Tracked
    following: object = None

    def held(self, weight):
        """Returns a weight as it shall be after an update, and in a stripped model.

        Other kinds of entries hold more than zeros.

        Args:
            weight: Tensor or variable of the weight's shape: the weight, or the
                average that an optimizer keeps of it.

        Returns:
            Tensor like `weight`. What is held already comes back bit for bit.
        """
        return self.left_of(weight)

    def left_of(self, weight):
        """Returns a weight, tensor or variable, with zeros in place of what is gone."""
        if self.following is not None:
            weight = masked(weight, self.following)
        return masked(weight, self.mask)

    def track(self, kind, value):
        """Makes the variable of a kind that belongs to this weight.

        Args:
            kind: String, what is tracked.
            value: Array of the weight's shape, what it holds at first.
        """
        self.tracked.hold(self._name_of(kind), value)

    def tracked_as(self, kind):
        """Returns the variable of a kind that belongs to this weight, or `None`."""
        return self.tracked.get(self._name_of(kind))

    def _name_of(self, kind):
        return self.mask.name.replace("mask", kind)


class MaskConstraint(keras.constraints.Constraint):
    """Holds a weight as its entry says, after every optimizer update.

    The user's own constraint runs on what the mask leaves. The average that an
    optimizer with `use_ema=True` keeps of the weight is held too, and the clock is
    advanced. Where removed weights go on learning in a shadow, it takes up what they
    have learnt.

    Args:
        store: The `MaskStore` of the weight.
        entry: Its `MaskedWeight`.
        own: The constraint that the variable had before, or `None`.
    """

    def __init__(self, store, entry, own=None):
        self.store = store
        self.entry = entry
        self.own = own
        self.optimizer = self.shadow = None  # as the step traced last has them

    def __call__(self, weight):
        """Returns the weight as it shall be after the update."""
        self.store.clock.advance(weight)
        self.optimizer = applying_optimizer()
        average = average_of(self.entry.variable, self.optimizer)
        if average is not None:
            average.assign(self.entry.held(average))
        learnt = weight
        if self.own is not None:
            # Of what is removed it sees nothing: a norm or a budget is of the rest.
            weight = self.own(self.entry.left_of(weight))
        self.shadow = shadow = self.entry.tracked_as("shadow")
        if shadow is not None:
            # A removed weight was zero, so that what it is now is how far it moved.
            shadow.assign(tf.where(self.entry.mask, weight, shadow + learnt))
        return self.entry.held(weight)


def masked(weight, mask):
    """Returns a weight with exact zeros where the mask is `False`.

    Args:
        weight: Float tensor or variable.
        mask: Boolean tensor or variable that can be broadcast against it.

    Returns:
        Tensor; kept weights are bit for bit the same.

    Example:
    >>> masked(tf.constant([1.5, float("nan")]), tf.constant([True, False])).numpy()
    array([1.5, 0. ], dtype=float32)
    """
    weight = tf.convert_to_tensor(weight)
    if weight.shape.num_elements() >= _LARGE:
        return tf.where(mask, weight, tf.zeros((), weight.dtype))
    # Twice as fast on small kernels (see benchmarks/training_overhead.py), but needs
    # memory for the mask in floats; also turns NaN and -0.0 into 0.
    return tf.math.multiply_no_nan(weight, tf.cast(mask, weight.dtype))
