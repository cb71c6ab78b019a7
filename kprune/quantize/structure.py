"""What a kernel keeps while it trains: its zeros, and which weights are equal."""

import keras
import numpy as np
from keras import ops

from kprune.clock import applying_optimizer
from kprune.masked_weight import masked
from kprune.optimizer_slots import average_of

_INT8_VALUES = 255  # of a symmetric range
_FEWEST_STEPS = 64  # Fewer may be clusters that were rounded.


def is_sparse(kernel):
    """Tells whether a kernel has zeros that shall stay zero.

    A kernel of nothing but zeros is one that has not learned anything yet, such as
    that of a new head, and could never learn if it were held there.

    Args:
        kernel: Float array.

    Returns:
        Bool.

    Example:
    >>> is_sparse(np.array([0.0, 0.5])), is_sparse(np.zeros(2))
    (True, False)
    """
    return bool(np.any(kernel == 0) and np.any(kernel))


def count_clusters(kernel):
    """Counts the distinct values of a kernel, if it is clustered.

    A kernel counts as clustered if its nonzero weights have at most 255 values, the
    number that int8 can tell apart, and each serves two weights on average. One value
    in all places is that of an initializer, such as ones, and no cluster.

    Args:
        kernel: Float array.

    Returns:
        Int, the number of distinct values, zero included; 0 if it is not clustered.

    Example:
    >>> count_clusters(np.array([0.5, 0.5, 0.0, -1.0, -1.0]))
    3
    >>> count_clusters(np.array([0.5, 0.25, 0.0, -1.0]))
    0
    """
    values, counts = np.unique(kernel, return_counts=True)
    nonzero = values != 0
    used = int(counts[nonzero].sum())
    distinct = int(nonzero.sum())
    clustered = 0 < distinct <= min(_INT8_VALUES, used // 2) and len(values) > 1
    return len(values) if clustered else 0


def is_rounded(kernel):
    """Tells whether a kernel's values are just the steps of int8.

    So `kprune.dequantize` leaves a kernel that was not clustered: many values, most
    of them one step apart.

    Args:
        kernel: Float array.

    Returns:
        Bool.

    Example:
    >>> is_rounded(np.arange(-127, 128) * 0.5)
    True
    >>> is_rounded(np.array([-1.0, 0.0, 0.5]))
    False
    """
    values = np.unique(kernel)
    if len(values) < _FEWEST_STEPS:
        return False
    steps = values / np.abs(values).max() * (_INT8_VALUES // 2)
    are_whole = np.allclose(steps, np.round(steps), rtol=0, atol=1e-3)
    return bool(are_whole and np.median(np.diff(steps)) < 1.5)


def equalized(weight, members, count):
    """Sets all weights of a cluster to their mean.

    Args:
        weight: Float tensor of any shape.
        members: Integer tensor of its shape, the cluster of each weight.
        count: Int, the number of clusters.

    Returns:
        Tensor like `weight`.

    Example:
    >>> equalized(np.array([1.0, 3.0, 5.0]), np.array([0, 0, 1]), 2)
    <tf.Tensor: shape=(3,), dtype=float64, numpy=array([2., 2., 5.])>
    """
    # Half precision could not even count to the size of a cluster.
    dtype = keras.backend.standardize_dtype(weight.dtype)
    wide = dtype if dtype == "float64" else "float32"
    flat = ops.cast(ops.reshape(weight, (-1,)), wide)
    members = ops.cast(ops.reshape(members, (-1,)), "int32")
    # Sums of differences, which are small: those of the weights themselves would
    # lose so many digits in a large cluster that its mean drifted off.
    some = ops.segment_max(flat, members, count)
    beyond = ops.segment_sum(flat - ops.take(some, members), members, count)
    sizes = ops.segment_sum(ops.ones_like(flat), members, count)
    means = some + beyond / ops.maximum(sizes, 1)
    return ops.cast(ops.reshape(ops.take(means, members), weight.shape), dtype)


class StructureConstraint(keras.constraints.Constraint):
    """Holds zeros at zero and clusters together after every optimizer update.

    The user's own constraint runs first. The average that an optimizer with
    `use_ema=True` keeps of the kernel is held likewise.

    Args:
        kernel: The Keras variable that it belongs to.
        mask: Boolean variable of its shape, `True` for weights that may be other
            than zero, or `None`.
        members: Integer variable of its shape, the cluster of each weight, or `None`.
        clusters: Int, the number of clusters.
        own: The constraint that the kernel had before, or `None`.
    """

    def __init__(self, kernel, mask=None, members=None, clusters=0, own=None):
        self.kernel = kernel
        self.mask = mask
        self.members = members
        self.clusters = clusters
        self.own = own

    def __call__(self, weight):
        """Returns the kernel as it shall be after the update."""
        average = average_of(self.kernel, applying_optimizer())
        if average is not None:
            average.assign(self._held(average))
        if self.own is not None:
            weight = self.own(weight)
        return self._held(weight)

    def _held(self, weight):
        if self.members is not None:
            weight = equalized(weight, self.members, self.clusters)
        return weight if self.mask is None else masked(weight, self.mask)


class QuantizeRefusal:
    """Stands in for the `quantize` of a layer whose kernel has to stay float32.

    Args:
        name: String, the name of the layer.
    """

    def __init__(self, name):
        self.name = name

    def __call__(self, *args, **kwargs):
        """Raises a `ValueError` that says what to do instead."""
        raise ValueError(
            f"quantize() was called on {self.name!r}, in a model that is "
            "quantization-aware: it would round the kernels a second time, in a form "
            "that TFLite does not read. Call `kprune.finish(model)` and export that, "
            "or `kprune.dequantize(model)` first."
        )
