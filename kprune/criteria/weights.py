"""Criteria that look at the weights alone."""

import numpy as np

from kprune.criteria.base import Criterion
from kprune.registry import register


@register("criteria")
class Magnitude(Criterion):
    """Scores a weight by its absolute value: the strong baseline, and the default.

    Example:
    >>> Magnitude()(np.array([[0.5, -2.0]], "float32"))
    array([[0.5, 2. ]], dtype=float32)

    Reference:
        Han et al., "Learning both weights and connections for efficient neural
        networks", NeurIPS 2015.
    """

    elementwise = True

    def __call__(self, weight):
        """Returns `|weight|`."""
        return np.abs(weight)
