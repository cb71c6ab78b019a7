"""Sparsity as a penalty: what makes training push weights towards zero.

For single weights Keras has what is needed, `keras.regularizers.L1`.
"""

import math

import keras
from keras import ops

from kprune.arguments import check_number
from kprune.registry import register


@register("regularizers")
class GroupLasso(keras.regularizers.Regularizer):
    """Pushes whole groups of weights towards zero, so that they can be removed.

    With `w_g` the weights of one group and `n_g` their number, the penalty is
    `strength * sum over groups of sqrt(n_g) * ||w_g||_2`. Unlike with a sum of
    squares the push does not fade as a group shrinks. It makes groups small, not
    exactly zero: prune them then, as with `kprune.Channel`.

    Args:
        strength: Float of 0 or more. Defaults to 0.001.
        axis: Int or list of ints: there is a group for each place along these axes,
            which holds all weights at that place. -1 groups by outputs (the filters of
            a `Conv2D`, the units of a `Dense`), -2 by inputs, `[-2, -1]` the single
            2-D slices of a convolution kernel; in a `Conv2DTranspose` outputs are at
            -2. These are the axes of the weight as Keras stores it, so that in an
            `LSTM` or a `GRU` each gate of a unit is a group of its own, where
            `Channel` removes all gates together; in `MultiHeadAttention`, whose
            query kernel has the axes (inputs, heads, sizes), -1 groups the same place
            of all heads, and -2 a head. Defaults to -1.

    Raises:
        ValueError: If `strength` is negative or no number, or `axis` no int; when the
            losses of a model are asked for, if a weight has no such axis.

    Example:
    >>> penalty = GroupLasso(0.5)(ops.array([[3.0, 0.0], [4.0, 0.0]]))
    >>> round(float(penalty), 4)  # 0.5 * sqrt(2) * (5 + 0)
    3.5355
    >>> layer = keras.layers.Conv2D(8, 3, kernel_regularizer=GroupLasso(1e-4))

    Reference:
        Yuan and Lin, "Model selection and estimation in regression with grouped
        variables", 2006; Wen et al., "Learning Structured Sparsity in Deep Neural
        Networks", NeurIPS 2016, which has no factor `sqrt(n_g)`.
    """

    def __init__(self, strength=0.001, axis=-1):
        expected = "a finite number, 0 or more"
        self.strength = float(
            check_number("strength", strength, lambda n: 0 <= n < math.inf, expected)
        )
        self.axis = list(axis) if isinstance(axis, (list, tuple)) else axis
        if not all(type(place) is int for place in self._axes()):
            raise ValueError(f"axis={axis!r} must be an int or a list of ints.")

    def get_config(self):
        return {"strength": self.strength, "axis": self.axis}

    def __call__(self, x):
        """Returns the penalty of a weight, a scalar."""
        within = self._axes_within(tuple(x.shape))
        size = math.prod(x.shape[axis] for axis in within)
        squares = ops.sum(ops.square(x), axis=within)
        # The root has no gradient at zero, where 0 is the one to take.
        positive = squares > 0
        norms = ops.where(positive, ops.sqrt(ops.where(positive, squares, 1)), 0)
        return self.strength * size**0.5 * ops.sum(norms)

    def _axes(self):
        return self.axis if isinstance(self.axis, list) else [self.axis]

    def _axes_within(self, shape):
        """Returns the axes along which a group reaches."""
        axes = self._axes()
        rank = len(shape)
        if not all(-rank <= axis < rank for axis in axes):
            raise ValueError(
                f"GroupLasso(axis={self.axis}) is on a weight of shape {shape}, which "
                f"has axes from -{rank} to {rank - 1}. Mend `axis`, or leave the layer "
                "out."
            )
        labels = {axis % rank for axis in axes}
        return tuple(axis for axis in range(rank) if axis not in labels)


@register("regularizers")
class Penalties(keras.regularizers.Regularizer):
    """Adds up several penalties on one weight.

    Args:
        penalties: List of Keras regularizers, by name, config or as objects.

    Example:
    >>> both = Penalties([keras.regularizers.L1(0.1), keras.regularizers.L2(0.1)])
    >>> round(float(both(ops.array([1.0, -2.0]))), 4)  # 0.3 and 0.5
    0.8
    """

    def __init__(self, penalties):
        self.penalties = [keras.regularizers.get(penalty) for penalty in penalties]

    def get_config(self):
        return {"penalties": [keras.regularizers.serialize(p) for p in self.penalties]}

    def __call__(self, x):
        """Returns the sum, a scalar."""
        return sum(penalty(x) for penalty in self.penalties)
