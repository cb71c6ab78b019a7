"""K-means in one dimension, by Lloyd's algorithm on sorted values.

A cluster of sorted values is an interval, its mean a difference of two running
totals, and its borders lie halfway between neighbouring centroids. A round then
takes microseconds, however many values there are.
"""

import numpy as np


def k_means(values, start, iterations):
    """Moves centroids to the means of their clusters until no value changes its own.

    A centroid that has lost all its values is put where it helps most.

    Args:
        values: Float array of shape `(n,)`, finite, ascending, not empty.
        start: Float array, the centroids to begin with, in any order.
        iterations: Int, the most rounds.

    Returns:
        Array of `values`' dtype, the centroids that some value is nearest to,
        ascending; mostly as many as in `start`.

    Example:
    >>> k_means(np.array([1.0, 2.0, 3.0, 9.0]), np.array([1.0, 2.0]), 10)
    array([2., 9.])

    Reference:
        Lloyd, "Least squares quantization in PCM", IEEE Transactions on
        Information Theory, 1982.
    """
    totals = np.concatenate([[0.0], np.cumsum(values, dtype=np.float64)])
    centroids = np.sort(start.astype(np.float64))
    before = None
    for _ in range(iterations):
        ends = borders(values, centroids)
        if before is not None and np.array_equal(ends, before):
            break
        before = ends
        counts = np.diff(ends)
        means = np.diff(totals[ends]) / np.maximum(counts, 1)
        centroids = _occupied(values, ends, np.where(counts > 0, means, np.nan))
    centroids = centroids.astype(values.dtype)
    return centroids[np.diff(borders(values, centroids)) > 0]


def borders(values, centroids):
    """Returns where each cluster begins among the values, and where the last ends.

    Args:
        values: Float array of shape `(n,)`, ascending.
        centroids: Float array of shape `(k,)`, ascending.

    Returns:
        Int array of shape `(k + 1,)`, ascending, from 0 to n.
    """
    inner = np.searchsorted(values, midpoints(centroids, values.dtype), side="right")
    return np.concatenate([[0], inner, [values.size]])


def midpoints(centroids, dtype):
    """Returns the largest numbers of a type that are not above the midpoints.

    Args:
        centroids: Float array of shape `(k,)`, ascending.
        dtype: NumPy dtype, that of the values to compare with.

    Returns:
        Array of shape `(k - 1,)`. A value up to the first of them is nearest to the
        first centroid, and so on.
    """
    # In double precision the sum of two float32 is exact, and so is the border. It
    # is rounded here, since NumPy would convert all weights to compare with doubles.
    centroids = centroids.astype(np.float64)
    exact = (centroids[1:] + centroids[:-1]) / 2
    rounded = exact.astype(dtype)
    below = np.nextafter(rounded, dtype.type(-np.inf))
    return np.where(rounded > exact, below, rounded)


def _occupied(values, ends, means):
    """Puts centroids without values onto the values that are farthest from theirs.

    The farthest values are ends of clusters. Without this, a linear start leaves
    many centroids of a pruned kernel unused, in the gap around zero.
    """
    empty = np.isnan(means)
    if empty.any():
        filled = np.flatnonzero(~empty)
        farthest_of_each = np.concatenate([ends[filled], ends[filled + 1] - 1])
        distances = np.abs(values[farthest_of_each] - np.tile(means[filled], 2))
        order = np.argsort(-distances, kind="stable")[: np.count_nonzero(empty)]
        places = np.flatnonzero(empty)[: order.size]
        means[places] = values[farthest_of_each[order]]
        # What finds no place even so shares one, and is left out in the end.
        means = np.where(np.isnan(means), values[0], means)
    return np.sort(means)
