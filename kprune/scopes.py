"""Scopes: which units compete with each other for survival."""

import dataclasses
import math

import numpy as np

from kprune.registry import Configurable, register
from kprune.selection import keep_by_size, keep_largest


@dataclasses.dataclass
class Contender:
    """One weight as a scope sees it: a row of units with scores.

    Attributes:
        scores: What has a length, the number of units, and gives 1-D float arrays
            when sliced.
        candidates: 1-D bool array, `True` for the units that are not removed yet,
            or `None` if that is all of them. No scope brings removed units back.
        sizes: Int, how many weights each unit has, or a 1-D int array where they
            differ. Defaults to 1.
        shape: Tuple, the shape of the weight. Defaults to a vector of the units.
        name: String, the layer's name and the weight's path in it, as in
            `"block_1/kernel"`. Defaults to the empty string.
        reachable: Float in (0, 1], the highest sparsity that the granularity allows
            for. Defaults to 1.
    """

    scores: object
    candidates: np.ndarray | None = None
    sizes: int | np.ndarray = 1
    shape: tuple | None = None
    name: str = ""
    reachable: float = 1.0

    def __post_init__(self):
        if self.shape is None:
            self.shape = (len(self.scores),)

    @property
    def size(self):
        """Int, how many weights there are in all units."""
        return math.prod(self.shape)


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


def keep_best(contenders, sparsity):
    """Ranks the units of some weights together, and removes the lowest.

    Args:
        contenders: List of `Contender`.
        sparsity: Float in [0, 1), of all their weights together.

    Returns:
        List of 1-D bool arrays, one a contender, `True` for the units that stay, at
        least one in all. The count is exact where units are of one size, otherwise
        to half of the unit at the border. Of equal scores the lower index stays.
    """
    scores = [c.scores for c in contenders]
    candidates = [c.candidates for c in contenders]
    sizes = [c.sizes for c in contenders]
    units = sum(map(len, scores))
    if all(isinstance(s, int) and s == sizes[0] for s in sizes):
        return keep_largest(scores, units - zeros_wanted(sparsity, units), candidates)
    zeros = zeros_wanted(sparsity, sum(c.size for c in contenders))
    return keep_by_size(scores, sizes, zeros, candidates)


class Scope(Configurable):
    """Base of all scopes.

    A subclass defines `__call__(contenders, sparsity)`, which takes a list of
    `Contender` and a float in [0, 1), and returns an iterable with one 1-D bool
    array a contender, `True` for the units that stay.

    Attributes:
        fixed_count: Bool, whether the number of zeros follows from the sparsity.
            Defaults to `True`.
        ranks_layers_together: Bool, whether units of different weights compete.
            Defaults to `False`.
    """

    fixed_count = True
    ranks_layers_together = False

    def __call__(self, contenders, sparsity):
        """Returns which units stay; see the class."""
        raise NotImplementedError(f"{type(self).__name__} defines no `__call__`.")

    def check(self, contenders, sparsity):
        """Raises if a sparsity can't be reached, before any training.

        Args:
            contenders: List of `Contender` whose scores are not to be looked at.
            sparsity: Float in [0, 1), the highest that will be asked for.

        Raises:
            ValueError: With the sparsity that can be reached.
        """


@register("scopes")
class LayerWise(Scope):
    """Prunes every weight to the same sparsity; at least one unit of each stays.

    Example:
    >>> contenders = [Contender(np.array([1.0, 2.0, 3.0, 4.0]))]
    >>> contenders.append(Contender(np.array([10.0, 20.0])))
    >>> [k.tolist() for k in LayerWise()(contenders, sparsity=0.5)]
    [[False, False, True, True], [False, True]]
    """

    def __call__(self, contenders, sparsity):
        """Yields the units of each weight that stay, weight after weight."""
        for contender in contenders:
            yield keep_best([contender], sparsity)[0]


@register("scopes")
class Global(Scope):
    """Ranks all weights together, so that layers find their own sparsities.

    Usually better than `LayerWise` at high sparsity; a layer whose weights are
    all small may lose every one of them.

    Example:
    >>> contenders = [Contender(np.array([1.0, 2.0, 3.0, 4.0]))]
    >>> contenders.append(Contender(np.array([10.0, 20.0])))
    >>> [k.tolist() for k in Global()(contenders, sparsity=0.5)]
    [[False, False, False, True], [True, True]]
    """

    ranks_layers_together = True

    def __call__(self, contenders, sparsity):
        """Returns the units that stay, ranked over all weights."""
        return keep_best(contenders, sparsity)
