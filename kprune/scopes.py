"""Scopes: which units compete with each other for survival."""

import math

from kprune.registry import Configurable, register
from kprune.selection import keep_largest


def zeros_wanted(sparsity, size):
    """Returns how many of `size` units a sparsity removes.

    Args:
        sparsity: Float in [0, 1).
        size: Int of 1 or more.

    Returns:
        Int, `floor(sparsity * size + 0.5)`, but never all of them.

    Example:
    >>> zeros_wanted(0.75, 64), zeros_wanted(0.5, 3), zeros_wanted(0.9, 1)
    (48, 2, 0)
    """
    return min(math.floor(sparsity * size + 0.5), size - 1)


class Scope(Configurable):
    """Base of all scopes.

    A subclass defines `__call__(scores, candidates, sparsity)`:

    - `scores`: Sequence with one source per weight; each has a length, the
      number of its units, and gives 1-D float arrays when sliced.
    - `candidates`: List with one 1-D bool array per weight, `True` for the units
      that are not removed yet, or `None` if that is all of them. No scope brings
      removed units back.
    - `sparsity`: Float in [0, 1).

    It returns an iterable with one 1-D bool array a weight, `True` for the
    units that stay.
    """

    def __call__(self, scores, candidates, sparsity):
        """Returns which units stay; see the class."""
        raise NotImplementedError(f"{type(self).__name__} defines no `__call__`.")


@register("scopes")
class LayerWise(Scope):
    """Prunes every weight to the same sparsity; at least one unit of each stays.

    Example:
    >>> import numpy as np
    >>> scores = [np.array([1.0, 2.0, 3.0, 4.0]), np.array([10.0, 20.0])]
    >>> [k.tolist() for k in LayerWise()(scores, [None, None], sparsity=0.5)]
    [[False, False, True, True], [False, True]]
    """

    def __call__(self, scores, candidates, sparsity):
        """Yields the units of each weight that stay, weight after weight."""
        for source, allowed in zip(scores, candidates, strict=True):
            keep = len(source) - zeros_wanted(sparsity, len(source))
            yield keep_largest([source], keep, [allowed])[0]


@register("scopes")
class Global(Scope):
    """Ranks all weights together, so that layers find their own sparsities.

    Usually better than `LayerWise` at high sparsity; a layer whose weights are
    all small may lose every one of them.

    Example:
    >>> import numpy as np
    >>> scores = [np.array([1.0, 2.0, 3.0, 4.0]), np.array([10.0, 20.0])]
    >>> [k.tolist() for k in Global()(scores, [None, None], sparsity=0.5)]
    [[False, False, False, True], [True, True]]
    """

    def __call__(self, scores, candidates, sparsity):
        """Returns the units that stay, ranked over all weights."""
        size = sum(map(len, scores))
        return keep_largest(scores, size - zeros_wanted(sparsity, size), candidates)
