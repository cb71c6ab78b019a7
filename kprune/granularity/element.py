"""Single weights."""

from kprune.granularity.base import Granularity, Units
from kprune.registry import register


@register("granularities")
class Element(Granularity):
    """Each weight on its own: the highest accuracy for a given sparsity.

    Example:
    >>> import numpy as np
    >>> units = Element().units(np.array([[1.0, 2.0], [3.0, 4.0]]))
    >>> units.scores
    array([1., 2., 3., 4.])
    >>> units.expand(np.array([True, False, False, True]))
    array([[ True, False],
           [False,  True]])
    """

    elementwise = True

    def units(self, scores, mask=None):
        """Returns the weights themselves, in C order."""
        shape = scores.shape
        return Units(scores.reshape(-1), lambda keep: keep.reshape(shape), 1)
