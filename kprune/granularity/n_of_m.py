"""N:M sparsity: some of every few consecutive weights."""

import itertools

import numpy as np

from kprune.granularity.base import Granularity, Units, bands, check_axis
from kprune.registry import register


@register("granularities", "n_of_m")
class NofM(Granularity):
    """Keeps `n` of every `m` consecutive weights: the pattern of sparse tensor cores.

    Every group loses as much, so that the sparsity goes in steps of `1 / m` up to
    `1 - n / m`, and each layer is pruned by itself. A schedule that rises to 0.5 takes
    `NofM(2, 4)` from 4:4 over 3:4 to 2:4.

    Note that `n` counts what is kept. TensorFlow Model Optimization's
    `sparsity_m_by_n` counts the zeros.

    A unit is a rank: the best weight of every group, the second best, and so on.
    What is removed already ranks last, and of equal scores the one with the higher
    index comes later.

    Where `m` does not divide the axis, its last group is smaller. Of its `g` weights
    as large a share stays as of the others, rounded up: `ceil(g * n / m)`, so that an
    axis shorter than `m` isn't lost. The sparsity of such a weight is a little lower.

    Args:
        n: Int of 1 or more, how many weights of a group stay. Defaults to 2.
        m: Int above `n` and up to 255, how many weights a group has. Defaults to 4.
        axis: Int, -2 for groups along the inputs of an output, which is the axis that
            hardware sums over, -1 for groups along the outputs. Defaults to -2.

    Raises:
        ValueError: If an argument is out of range.

    Example:
    >>> import kprune
    >>> scores = np.array([[1.0, 8.0], [2.0, 7.0], [3.0, 6.0], [4.0, 5.0]])
    >>> kprune.compute_mask(scores, 0.5, granularity=NofM(2, 4)).T
    array([[False, False,  True,  True],
           [ True,  True, False, False]])

    Reference:
        Zhou et al., "Learning N:M fine-grained structured sparse neural networks from
        scratch", ICLR 2021.
    """

    within_layer = True

    def __init__(self, n=2, m=4, axis=-2):
        if not (isinstance(n, int) and isinstance(m, int) and 1 <= n < m <= 255):
            raise ValueError(
                f"n={n!r}, m={m!r}: expected ints with 1 <= n < m <= 255. `n` of every "
                "`m` consecutive weights are kept."
            )
        self.n = n
        self.m = m
        self.axis = check_axis(axis)

    def units(self, scores, mask=None):
        """Returns the ranks, the best one first."""
        ranks = self._ranks(scores, mask)

        def expand(keep):
            # Kept ranks follow each other; `keep[ranks]` would be far slower.
            chosen = np.full(ranks.shape, keep[-1])
            borders = np.flatnonzero(keep[1:] != keep[:-1]) + 1
            for border in borders.tolist():  # ranks would be cast to NumPy's ints
                chosen ^= ranks < border
            return chosen

        def collapse(mask):
            left = np.zeros(self.m, bool)
            for part in bands(ranks.shape):  # the first shows nearly all that are left
                for rank in np.flatnonzero(~left).tolist():
                    left[rank] = (mask[part] & (ranks[part] == rank)).any()
            return left

        # A rank is one of `m`, whatever the length of the last group.
        size = max(1, scores.size // self.m)
        return Units(-np.arange(self.m, dtype="float32"), expand, size, collapse)

    def _ranks(self, scores, mask):
        """Returns the unit of each weight, from 0 for the best to `m - 1`."""
        along = scores.ndim + self.axis
        if along < 0:  # a vector is one input of many outputs
            return np.zeros(scores.shape, np.uint8)
        size = scores.shape[along]
        ranks = np.empty(scores.shape, np.uint8)
        for begin, end, length in (
            (0, size - size % self.m, self.m),
            (size - size % self.m, size, size % self.m),
        ):
            if begin == end:
                continue
            place = (slice(None),) * along + (slice(begin, end),)
            grouped = [_grouped(a, place, along, length) for a in (scores, mask, ranks)]
            _rank(*grouped)
            # The best of a small group belongs to the best of the others.
            if length < self.m:
                ranks[place] = (np.arange(length) * self.m // length)[ranks[place]]
        return ranks

    def reachable(self, shape):
        """Returns `1 - n / m`."""
        return 1 - self.n / self.m

    def get_config(self):
        return {"n": self.n, "m": self.m, "axis": self.axis}


def _grouped(array, place, along, length):
    """Returns a view of a part of an array, with the places in a group first."""
    if array is None:
        return None
    part = array[place]
    groups = (part.shape[along] // length, length)
    shape = part.shape[:along] + groups + part.shape[along + 1 :]
    return np.moveaxis(part.reshape(shape), along + 1, 0)


def _rank(scores, mask, ranks):
    """Writes into `ranks` which place each score has within its group.

    Args:
        scores: Float array of shape `(length, ...)`.
        mask: Bool array of its shape, or `None`: who ranks before the others.
        ranks: Array of bytes of its shape.
    """
    for part in bands(scores.shape[1:], weights=len(scores)):
        part = slice(None), *part
        # Copies, since NumPy is slow where neighbours are far from each other.
        present = None if mask is None else mask[part].copy()
        ranks[part] = _ranks_of(scores[part].copy(), present)


def _ranks_of(scores, mask):
    ranks = np.empty(scores.shape, np.uint8)
    for place, rank in enumerate(ranks):
        rank[...] = len(ranks) - 1 - place  # as if all later ones were ahead
    removed = None if mask is None else ~mask
    # A few vector operations a pair; sorting many short groups takes far longer.
    for first, second in itertools.combinations(range(len(scores)), 2):
        ahead = scores[first] >= scores[second]
        if mask is not None:
            ahead &= mask[first]
            ahead |= removed[second]
        ranks[second] += ahead.view(np.uint8)  # bool would be cast
        ranks[first] -= ahead.view(np.uint8)
    return ranks
