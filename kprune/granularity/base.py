"""What every granularity is.

A granularity turns the scores of single weights into the scores of units, and
the choice of units back into a mask of weights.
"""

import collections.abc
import dataclasses

import numpy as np

from kprune.registry import Configurable


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

    def kept(self, mask):
        """Returns which units a mask has left.

        Finds the unit of each weight by expanding the bits of the units' numbers.

        Args:
            mask: Bool array of the weight's shape, `True` keeps the weight.

        Returns:
            1-D bool array, `True` for each unit of which a weight is left.
        """
        numbers = np.arange(self.scores.size)
        owner = np.zeros(mask.shape, np.int64)
        for bit in range(self.scores.size.bit_length()):
            owner |= self.expand(numbers >> bit & 1 == 1) * (1 << bit)
        return np.bincount(owner[mask], minlength=self.scores.size) > 0


class Granularity(Configurable):
    """Base of all granularities: a rule that says which weights stay or go together.

    A subclass defines `units(scores, mask)`. Kernels come in the layout
    `(..., inputs, outputs)`, whatever layer they are from.

    Attributes:
        elementwise: Bool, whether the units are the single weights in C order.
            Defaults to `False`.
        axis: Int or `None`. Where each unit is all that lies at one place of this
            axis (or at some neighbouring places), scores that are alike along the
            other axes rank such units. Defaults to `None`.
        within_layer: Bool, whether units mean something only beside the others of
            the same weight, so that weights can't be ranked together. Defaults to
            `False`.
    """

    elementwise = False
    axis = None
    within_layer = False

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
