"""Whole channels of a kernel."""

import numpy as np

from kprune.granularity.base import Granularity, Units
from kprune.registry import register


@register("granularities")
class Channel(Granularity):
    """All weights of an output channel: a filter of a convolution, a unit of `Dense`.

    A unit's score is the mean over its weights, so that units of different sizes
    can be ranked together.

    Args:
        axis: Int, -1 for output channels, -2 for input channels. Defaults to -1.

    Raises:
        ValueError: If `axis` is another number.

    Example:
    >>> units = Channel().units(np.array([[1.0, 5.0], [3.0, 7.0]]))
    >>> units.scores
    array([2., 6.])
    >>> units.expand(np.array([False, True]))
    array([[False,  True],
           [False,  True]])

    Reference:
        Li et al., "Pruning filters for efficient ConvNets", ICLR 2017.
    """

    def __init__(self, axis=-1):
        if axis not in (-1, -2):
            raise ValueError(
                f"axis={axis!r} must be -1 (output channels) or -2 (input channels)."
            )
        self.axis = axis

    def units(self, scores, mask=None):
        """Returns the channels in their order."""
        axis = scores.ndim + self.axis
        others = tuple(i for i in range(scores.ndim) if i != axis)
        shape, aligned = scores.shape, [1] * scores.ndim
        aligned[axis] = scores.shape[axis]

        def expand(keep):
            return np.broadcast_to(keep.reshape(aligned), shape).copy()

        size = scores.size // scores.shape[axis]
        return Units(scores.mean(axis=others), expand, size)

    def get_config(self):
        return {"axis": self.axis}
