"""What every granularity is.

A granularity turns the scores of single weights into the scores of units, and
the choice of units back into a mask of weights.
"""

import collections.abc
import dataclasses
import math

import numpy as np

from kprune.registry import Configurable

_BAND = 1 << 20  # Weights that fit the cache, and outweigh NumPy's overhead.


@dataclasses.dataclass(frozen=True)
class Units:
    """The units of one weight, and the way back from units to weights.

    Attributes:
        scores: 1-D float array, one score a unit, larger means keep.
        expand: Function of a 1-D bool array, `True` for each unit that stays. It
            returns the mask, a bool array of the weight's shape, and gives it away:
            nobody else writes to it.
        sizes: Int, how many weights each unit has, or a 1-D int array, one entry a
            unit, where they differ.
        collapse: Function of a bool array of the weight's shape, the fast way to
            what `kept` gives. Defaults to none, whereupon `expand` is asked.

    Example:
    >>> two_columns = Units(
    ...     scores=np.array([1.0, 2.0]),
    ...     expand=lambda keep: np.broadcast_to(keep, (3, 2)).copy(),
    ...     sizes=3,
    ... )
    >>> two_columns.kept(np.array([[False, True]] * 3))
    array([False,  True])
    """

    scores: np.ndarray
    expand: collections.abc.Callable
    sizes: int | np.ndarray
    collapse: collections.abc.Callable | None = None

    def kept(self, mask):
        """Returns which units a mask has left.

        Args:
            mask: Bool array of the weight's shape, `True` keeps the weight.

        Returns:
            1-D bool array, `True` for each unit of which a weight is left.
        """
        if self.collapse is not None:
            return self.collapse(mask)
        # The unit of each weight, by expanding the bits of the units' numbers.
        numbers = np.arange(self.scores.size)
        owner = np.zeros(mask.shape, np.int64)
        for bit in range(self.scores.size.bit_length()):
            owner |= self.expand(numbers >> bit & 1 == 1) * (1 << bit)
        return np.bincount(owner[mask], minlength=self.scores.size) > 0


@dataclasses.dataclass(frozen=True)
class Tie:
    """How a weight hangs together with others: their units stay or go as one.

    Weights with one key have one number of units; a unit is its part in all of them.

    Attributes:
        key: What tells these weights from others; can be hashed.
        axis: Int, the axis that is cut, in the layout `(..., inputs, outputs)`: -1
            or -2.
        number: Int, how many units there are. The axis is cut into as many runs of
            equal length, unless `units` says otherwise.
        units: Int array by place of the axis, which unit the place belongs to, -1 for
            none: such places stay. A unit may have several places, or none in this
            weight. Defaults to `None`: runs.
        stays: Bool array by unit, `True` for those that can't go. Defaults to `None`:
            any may.
        guards: Tuple of int arrays of units, of each of which one should stay.
            Defaults to none.
    """

    key: collections.abc.Hashable
    axis: int
    number: int
    units: np.ndarray | None = dataclasses.field(default=None, compare=False)
    stays: np.ndarray | None = dataclasses.field(default=None, compare=False)
    guards: tuple = dataclasses.field(default=(), compare=False)


class Granularity(Configurable):
    """Base of all granularities: a rule that says which weights stay or go together.

    A subclass defines `units(scores, mask)`. Kernels come in the layout
    `(..., inputs, outputs)`, whatever layer they are from.

    Attributes:
        elementwise: Bool, whether the units are the single weights in C order.
            Defaults to `False`.
        channel_axis: Int or `None`. Where each unit is all that lies at one place of
            this axis, criteria that score whole places of it rank such units.
            Defaults to `None`.
        within_layer: Bool, whether units mean something only beside the others of
            the same weight, so that weights can't be ranked together. Defaults to
            `False`.
        tied_by: String or `None`. Where units reach over several weights, the
            family of rules that says over which; `units` then takes the weight's
            `Tie` as a third argument. Defaults to `None`.
        coupled: Bool, whether units hang together as the channels of a model's graph
            do, where that can be known; `units` takes the weight's `Tie` then, and
            none elsewhere. Defaults to `False`.
    """

    elementwise = False
    channel_axis = None
    within_layer = False
    tied_by = None
    coupled = False

    def units(self, scores, mask=None):
        """Returns the units of a weight.

        Args:
            scores: Float array, one score a weight, larger means keep.
            mask: Bool array of its shape, what the present mask keeps. `None` if
                that is all.

        Returns:
            `Units`.
        """
        raise NotImplementedError(f"{type(self).__name__} defines no `units`.")

    def reachable(self, shape):
        """Returns the highest sparsity that a weight may be given.

        Args:
            shape: Shape of the weight.

        Returns:
            Float in (0, 1]. Defaults to 1: at least one unit stays all the same.
        """
        return 1.0


def check_axis(axis):
    """Returns an axis, which is -1 or -2.

    Args:
        axis: What was given.

    Raises:
        ValueError: If it is another one.
    """
    if axis not in (-1, -2):
        raise ValueError(f"axis={axis!r} must be -1 (the outputs) or -2 (the inputs).")
    return axis


def bands(shape, weights=1):
    """Yields indices that cut an array into parts which fit the cache.

    Args:
        shape: Tuple of one int or more.
        weights: Int, how many weights are looked at for each entry. Defaults to 1.

    Yields:
        Tuples of slices, which cut the first axis longer than 1.

    Example:
    >>> list(bands((1, 3000, 1000), weights=500))[-1]
    (slice(None, None, None), slice(2998, 3000, None))
    """
    axis = next((i for i, length in enumerate(shape) if length > 1), 0)
    length = shape[axis]
    step = max(1, _BAND * length // max(1, weights * math.prod(shape)))
    for begin in range(0, length, step):
        yield *[slice(None)] * axis, slice(begin, min(begin + step, length))
