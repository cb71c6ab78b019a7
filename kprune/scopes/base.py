"""What a scope is, and what it sees."""

import dataclasses
import math

import numpy as np

from kprune.registry import Configurable
from kprune.selection import keep_by_size, keep_largest

_ROUNDING = 1e-9  # 0.7 * 10 is not quite 7.
# A bound is never met to the last weight where units are whole.
_SHORT_OF_UNITS = 0.01


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
        reachable: Float in [0, 1], the highest sparsity that the weight may be
            given. Defaults to 1.
        shapes: List of the shapes of all weights, where their units stay or go
            together. Defaults to that of the one.
        names: List of the names of all weights, where they are of several layers, or
            `None`.
    """

    scores: object
    candidates: np.ndarray | None = None
    sizes: int | np.ndarray = 1
    shape: tuple | None = None
    name: str = ""
    reachable: float = 1.0
    shapes: list | None = None
    names: list | None = None

    def __post_init__(self):
        if self.shape is None:
            self.shape = (len(self.scores),)
        if self.shapes is None:
            self.shapes = [self.shape]

    @property
    def size(self):
        """Int, how many weights there are in all units."""
        return math.prod(self.shape)

    def weights_in(self, units):
        """Returns how many weights some of the units hold.

        Args:
            units: 1-D bool array, `True` for those that count.
        """
        if isinstance(self.sizes, int):
            return self.sizes * int(np.count_nonzero(units))
        return int(self.sizes[units].sum())


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


def at_most(sparsity, size):
    """Returns the largest count of `size` that is no more than a sparsity."""
    return math.floor(sparsity * size + _ROUNDING)


def most_to_go(contender, sparsity):
    """Returns how many weights a sparsity removes at most, in whole units.

    Args:
        contender: `Contender`.
        sparsity: Float in [0, 1], not to be exceeded.

    Returns:
        Int. Where units differ in size, their borders are not looked at.
    """
    if isinstance(contender.sizes, int):
        return contender.sizes * at_most(sparsity, len(contender.scores))
    return at_most(sparsity, contender.size)


def common_unit(contenders):
    """Returns how many weights every unit has, or `None` where they differ.

    Args:
        contenders: List of `Contender`.
    """
    sizes = [c.sizes for c in contenders]
    if all(isinstance(s, int) and s == sizes[0] for s in sizes):
        return sizes[0] if sizes else 1
    return None


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
    return remove_lowest(contenders, weights_to_go(contenders, sparsity))


def weights_to_go(contenders, sparsity):
    """Returns how many weights a sparsity removes, in whole units if all are alike.

    Args:
        contenders: List of `Contender`.
        sparsity: Float in [0, 1), of all their weights together.

    Returns:
        Int.
    """
    unit = common_unit(contenders)
    if unit is None:
        return zeros_wanted(sparsity, sum(c.size for c in contenders))
    return unit * zeros_wanted(sparsity, sum(len(c.scores) for c in contenders))


def remove_lowest(contenders, zeros, stay=1):
    """Ranks the units of some weights together, and removes a number of weights.

    Args:
        contenders: List of `Contender`.
        zeros: Int, how many weights shall be gone, with those that are already.
        stay: Int, how many units stay in any case. Defaults to 1.

    Returns:
        List of 1-D bool arrays, as `keep_best` gives them.
    """
    scores = [c.scores for c in contenders]
    candidates = [c.candidates for c in contenders]
    unit = common_unit(contenders)
    if unit is None:
        sizes = [c.sizes for c in contenders]
        return keep_by_size(scores, sizes, zeros, candidates, stay=stay)
    keep = sum(map(len, scores)) - (2 * zeros + unit) // (2 * unit)
    return keep_largest(scores, max(keep, stay), candidates)


class Scope(Configurable):
    """Base of all scopes.

    A subclass defines `__call__(contenders, sparsity)`, which takes a list of
    `Contender` and a float in [0, 1), and returns an iterable with one 1-D bool
    array a contender, `True` for the units that stay. No weight is to become sparser
    than its `reachable`.

    Attributes:
        fixed_count: Bool, whether the number of zeros follows from the sparsity.
            Defaults to `True`.
        ranks_layers_together: Bool, whether units of different weights compete.
            Defaults to `False`.
        elementwise: Bool, whether it ranks single weights and nothing else. Defaults
            to `False`.
        within_weight: String, the scope by which regrowths exchange units of one
            weight. Defaults to `"layer_wise"`: any for any other.
    """

    fixed_count = True
    ranks_layers_together = False
    elementwise = False
    within_weight = "layer_wise"

    def __call__(self, contenders, sparsity):
        """Returns which units stay; see the class."""
        raise NotImplementedError(f"{type(self).__name__} defines no `__call__`.")

    def limits(self, contenders):
        """Returns the highest sparsity that each weight may be given.

        Args:
            contenders: List of `Contender` whose scores are not looked at.

        Returns:
            List of floats in [0, 1].
        """
        return [c.reachable for c in contenders]

    def asked(self, contenders, sparsity):
        """Returns the sparsity of all weights together that will be reached.

        Args:
            contenders: List of `Contender` whose scores are not looked at.
            sparsity: Float in [0, 1), what the schedule says.

        Returns:
            Float, or `None` if the scores decide. Defaults to `sparsity`.
        """
        return sparsity

    def check(self, contenders, sparsity):
        """Raises if a sparsity can't be reached, before any training.

        Args:
            contenders: List of `Contender` whose scores are not looked at.
            sparsity: Float in [0, 1), the highest that will be asked for.

        Raises:
            ValueError: With the sparsity that can be reached.
        """
        limits = self.limits(contenders)
        size = sum(c.size for c in contenders)
        limited = list(zip(contenders, limits, strict=True))
        most = sum(c.size * limit for c, limit in limited)
        whole = min(most, sum(most_to_go(c, limit) for c, limit in limited))
        if sparsity * size > min(
            most + _ROUNDING * size, whole + _SHORT_OF_UNITS * size
        ):
            bounds = [f"{c.name!r} {limit:.4g}" for c, limit in limited if limit < 1]
            reachable = at_most(whole / size, 10_000) / 10_000
            raise ValueError(
                f"A sparsity of {sparsity:g} can't be reached with {self!r}, only "
                f"{reachable:g} over all weights. The highest that each may be given: "
                f"{', '.join(bounds)}. Ask for {reachable:g} or less, in a schedule at "
                "its end, or loosen the bounds, or take another granularity."
            )
