"""Granularities: what is removed together.

A granularity turns the scores of single weights into the scores of units, and
the choice of units back into a mask of weights.
"""

import numpy as np

from kprune.registry import Configurable, register


class Granularity(Configurable):
    """Base of all granularities.

    Attributes:
        elementwise: Bool, whether the units are the single weights in C order.
            Defaults to `False`.
    """

    elementwise = False

    def scores(self, scores):
        """Returns the score of every unit.

        Args:
            scores: Float array, one score a weight, larger means keep.

        Returns:
            1-D float array, one score a unit.
        """
        raise NotImplementedError(f"{type(self).__name__} defines no `scores`.")

    def mask(self, keep, shape):
        """Returns the mask of the weights from the choice of units.

        Args:
            keep: 1-D bool array, `True` for each unit that stays.
            shape: Shape of the weight.

        Returns:
            Bool array of that shape, `True` keeps the weight. It is given away:
            nobody else writes to it.
        """
        raise NotImplementedError(f"{type(self).__name__} defines no `mask`.")

    def kept(self, mask, units):
        """Returns which units a mask has left.

        Finds the unit of each weight by asking `mask` about the bits of the units'
        numbers. Where units have a plain order, a subclass does it faster.

        Args:
            mask: Bool array of the weight's shape, `True` keeps the weight.
            units: Int, how many units the weight has.

        Returns:
            1-D bool array, `True` for each unit of which a weight is left.
        """
        numbers = np.arange(units)
        owner = np.zeros(mask.shape, np.int64)
        for bit in range(units.bit_length()):
            owner |= self.mask(numbers >> bit & 1 == 1, mask.shape) * (1 << bit)
        return np.bincount(owner[mask], minlength=units) > 0


@register("granularities")
class Element(Granularity):
    """Each weight on its own: the highest accuracy for a given sparsity.

    Example:
    >>> Element().scores(np.array([[1.0, 2.0], [3.0, 4.0]]))
    array([1., 2., 3., 4.])
    >>> Element().mask(np.array([True, False]), (2, 1))
    array([[ True],
           [False]])
    """

    elementwise = True

    def scores(self, scores):
        """Returns the scores as they are, in C order."""
        return scores.reshape(-1)

    def mask(self, keep, shape):
        """Returns the choice in the shape of the weight."""
        return keep.reshape(shape)
